"""Methods: how the loss of every row is weighted. Each module with a method is discovered."""

from harness.config.experiment import MethodChoice
from harness.methods.base import (
    AnyMethod,
    Method,
    MethodSettings,
    MicroBatch,
    SourceInfo,
)
from harness.methods.predictor import AnyPredictor, Classified, Predictor
from harness.registry import Registry

methods: Registry[AnyMethod] = Registry("method", Method, "harness.methods", "harness.methods")  # type: ignore[type-abstract]


def make_method(choice: MethodChoice) -> AnyMethod:
    """The method of a choice, with its settings."""
    kind = methods.get(choice.name)
    return kind(kind.settings_type().model_validate(choice.settings))


__all__ = [
    "AnyMethod",
    "AnyPredictor",
    "Classified",
    "Method",
    "MethodSettings",
    "MicroBatch",
    "Predictor",
    "SourceInfo",
    "make_method",
    "methods",
]
