"""Exports of trained models: SavedModels with signatures that people serve."""

from trainers.export.card import Card
from trainers.export.saved_model import export
from trainers.export.signatures import MAX_PIXELS, Signatures

__all__ = ["MAX_PIXELS", "Card", "Signatures", "export"]
