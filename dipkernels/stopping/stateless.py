"""What monitors share that remember nothing of the outputs."""

from torch import Tensor


class Stateless:
    """A monitor whose scalars depend on the present output alone."""

    def state(self) -> dict[str, Tensor]:
        """Copy nothing.

        Returns
        -------
        dict
            Empty.
        """
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Do nothing.

        Parameters
        ----------
        state : dict
            As `state` made it.
        """
