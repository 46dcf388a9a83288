"""Words to objects: what a command line or a plan says of priors, tasks and images.

A task or a network that is registered is offered by every command and every sweep.
"""

from dipkernels.specs import pixels as pixels  # registers its kinds, which are listed first

from dipkernels.specs import measuring as measuring  # isort: skip
from dipkernels.specs import combining as combining  # isort: skip
