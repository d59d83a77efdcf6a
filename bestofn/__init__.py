"""Best-of-N sampling at test time: draw N candidates, score each, return the best."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bestofn.engines.base import SamplingParams as SamplingParams
    from bestofn.engines.base import load_engine as load_engine
    from bestofn.errors import BestOfNError as BestOfNError
    from bestofn.rejection import EarlyRejection as EarlyRejection
    from bestofn.rewards.flip import FLIPLikelihood as FLIPLikelihood
    from bestofn.rewards.flip import FLIPReward as FLIPReward
    from bestofn.rewards.judges import ListwiseJudge as ListwiseJudge
    from bestofn.rewards.judges import PairwiseJudge as PairwiseJudge
    from bestofn.rewards.judges import PointwiseJudge as PointwiseJudge
    from bestofn.rewards.mutual import MutualInformation as MutualInformation
    from bestofn.rewards.scalar import ScalarReward as ScalarReward
    from bestofn.sampler import BestOfN as BestOfN
    from bestofn.stopping import ExpectedGain as ExpectedGain
    from bestofn.types import Candidate as Candidate
    from bestofn.types import Message as Message
    from bestofn.types import Prompt as Prompt
    from bestofn.types import Score as Score
    from bestofn.types import Selection as Selection
    from bestofn.types import Usage as Usage

__version__ = "0.1.0"

# Loaded at first use, so that `import bestofn` is quick.
_NAMES = {
    "bestofn.engines.base": ("SamplingParams", "load_engine"),
    "bestofn.errors": ("BestOfNError",),
    "bestofn.rejection": ("EarlyRejection",),
    "bestofn.rewards.flip": ("FLIPLikelihood", "FLIPReward"),
    "bestofn.rewards.judges": ("ListwiseJudge", "PairwiseJudge", "PointwiseJudge"),
    "bestofn.rewards.mutual": ("MutualInformation",),
    "bestofn.rewards.scalar": ("ScalarReward",),
    "bestofn.sampler": ("BestOfN",),
    "bestofn.stopping": ("ExpectedGain",),
    "bestofn.types": ("Candidate", "Message", "Prompt", "Score", "Selection", "Usage"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bestofn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
