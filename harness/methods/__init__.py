"""How an example's loss is weighted: one file a method, found by being here."""

from harness.methods.base import (
    AnyMethod,
    AnyPredictor,
    Assignment,
    Method,
    MethodSettings,
    Predictor,
    Preparation,
    Step,
)
from harness.registry import Registry

methods: Registry[AnyMethod] = Registry("method", Method, "harness.methods", "harness.methods")  # type: ignore[type-abstract]

__all__ = [
    "AnyMethod",
    "AnyPredictor",
    "Assignment",
    "Method",
    "MethodSettings",
    "Predictor",
    "Preparation",
    "Step",
    "methods",
]
