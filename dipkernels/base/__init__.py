"""What everything uses: checks, seeds, devices, progress, origin, Ctrl-C, words, error bars."""
