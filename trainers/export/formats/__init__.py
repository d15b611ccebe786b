"""Conversion of trained models to LiteRT, ONNX and OpenVINO, each one checked by its runtime."""

from trainers.export.formats.conversion import FORMATS, Converted, convert

__all__ = ["FORMATS", "Converted", "convert"]
