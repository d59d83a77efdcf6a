"""Gold verdicts: whether a response is right, by a reference answer or a rule."""

from bestofn.verifiers.base import Verifier, load_verifier

__all__ = ["Verifier", "load_verifier"]
