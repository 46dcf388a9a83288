"""When to stop a fit: monitors of its outputs, rules on its trace, and a panel of all rules.

`stopping_panel` judges a finished fit by every rule, each with its regret in dB against the oracle.
A rule of your own is a class derived from `Rule`, or a function; pass it, or `register_rule` it.
Rules and monitors with other settings than the published ones are made from the classes of
`dipkernels.stopping.published` and `dipkernels.stopping.monitors`.
"""

from dipkernels.stopping import monitors, published, references, twins
from dipkernels.stopping.bands import CleanBands, FrequencyBands
from dipkernels.stopping.calibration import Calibration, calibrate, leave_one_out
from dipkernels.stopping.monitors import Monitor, make_monitor, monitor_names
from dipkernels.stopping.panel import detections, format_panel, stopping_panel
from dipkernels.stopping.predicted import PredictedOptimum, stopping_time
from dipkernels.stopping.reference_free import blur, sharpness
from dipkernels.stopping.rules import (
    Decision,
    FunctionRule,
    NotApplicableError,
    Rule,
    TooShortError,
    make_rule,
    register_rule,
)

__all__ = [
    "Calibration",
    "Decision",
    "FunctionRule",
    "Monitor",
    "NotApplicableError",
    "PredictedOptimum",
    "Rule",
    "TooShortError",
    "blur",
    "calibrate",
    "detections",
    "format_panel",
    "leave_one_out",
    "make_monitor",
    "make_rule",
    "monitor_names",
    "register_rule",
    "sharpness",
    "stopping_panel",
    "stopping_time",
]

register_rule("es-wmv", published.WindowedVarianceRule)
register_rule("es-emv", published.MovingVarianceRule)
register_rule("blur-sharpness", published.BlurSharpnessRule)
register_rule("discrepancy", published.Discrepancy)
register_rule("held-out", published.HeldOut)
register_rule("two-copies", references.TwoCopies)
register_rule("pseudo-reference", references.PseudoReferenceRule)
register_rule("sure", twins.Sure)
register_rule("pseudo-noise", twins.PseudoNoise)
register_rule("delta-mse", published.DeltaMSE)
register_rule("calibrated", Calibration)
register_rule("last", published.Last)
register_rule("oracle", published.Oracle)

monitors.register_monitor("windowed-variance", monitors.WindowedVariance)
monitors.register_monitor("moving-variance", monitors.MovingVariance)
monitors.register_monitor("blur-sharpness", monitors.BlurSharpness)
monitors.register_monitor("frequency-bands", FrequencyBands)
monitors.register_monitor("clean-bands", CleanBands)
monitors.register_monitor("pseudo-reference", references.PseudoReference)
monitors.register_monitor("twin", twins.Twin)
