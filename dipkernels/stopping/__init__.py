"""When to stop a fit: monitors of its outputs, rules on its trace, and a panel of all rules.

`stopping_panel` judges a finished fit by every rule, each with its regret in dB against the oracle.
A rule of your own is a class derived from `Rule`, or a function; pass it, or `register_rule` it.
"""

from dipkernels.stopping.bands import CleanBands, FrequencyBands
from dipkernels.stopping.calibration import Calibration, calibrate, leave_one_out
from dipkernels.stopping.monitors import (
    BlurSharpness,
    Monitor,
    MovingVariance,
    NeedsTasks,
    WindowedVariance,
    make_monitor,
    monitor_names,
)
from dipkernels.stopping.panel import detections, format_panel, stopping_panel
from dipkernels.stopping.predicted import PredictedOptimum, StoppingTime, stopping_time
from dipkernels.stopping.published import (
    BlurSharpnessRule,
    DeltaMSE,
    Discrepancy,
    HeldOut,
    Last,
    MovingVarianceRule,
    Oracle,
    WindowedVarianceRule,
)
from dipkernels.stopping.reference_free import blur, sharpness
from dipkernels.stopping.rules import (
    Decision,
    FunctionRule,
    NotApplicableError,
    Rule,
    TooShortError,
    make_rule,
    register_rule,
    rule_names,
)

__all__ = [
    "BlurSharpness",
    "BlurSharpnessRule",
    "Calibration",
    "CleanBands",
    "Decision",
    "DeltaMSE",
    "Discrepancy",
    "FrequencyBands",
    "FunctionRule",
    "HeldOut",
    "Last",
    "Monitor",
    "MovingVariance",
    "MovingVarianceRule",
    "NeedsTasks",
    "NotApplicableError",
    "Oracle",
    "PredictedOptimum",
    "Rule",
    "StoppingTime",
    "TooShortError",
    "WindowedVariance",
    "WindowedVarianceRule",
    "blur",
    "calibrate",
    "detections",
    "format_panel",
    "leave_one_out",
    "make_monitor",
    "make_rule",
    "monitor_names",
    "register_rule",
    "rule_names",
    "sharpness",
    "stopping_panel",
    "stopping_time",
]

register_rule("es-wmv", WindowedVarianceRule)
register_rule("es-emv", MovingVarianceRule)
register_rule("blur-sharpness", BlurSharpnessRule)
register_rule("discrepancy", Discrepancy)
register_rule("held-out", HeldOut)
register_rule("delta-mse", DeltaMSE)
register_rule("calibrated", Calibration)
register_rule("last", Last)
register_rule("oracle", Oracle)
