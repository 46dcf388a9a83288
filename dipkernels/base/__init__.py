"""What everything else uses."""
