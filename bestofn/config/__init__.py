"""The configuration of every command: the sections of recipes, and the command line's options."""

from bestofn.config.commands import (
    AskConfig,
    ClusterConfig,
    DrawConfig,
    PromptsConfig,
    SampleConfig,
    ScoreConfig,
    ScorerConfig,
    SelectConfig,
)
from bestofn.config.evaluations import (
    AdviseConfig,
    AuditConfig,
    CurveConfig,
    ModelConfig,
    ReportConfig,
    RewardBenchConfig,
)
from bestofn.config.parts import EngineConfig, RewardConfig
from bestofn.section import NO_ENGINE, Section, checked

__all__ = [
    "NO_ENGINE",
    "AdviseConfig",
    "AskConfig",
    "AuditConfig",
    "ClusterConfig",
    "CurveConfig",
    "DrawConfig",
    "EngineConfig",
    "ModelConfig",
    "PromptsConfig",
    "ReportConfig",
    "RewardBenchConfig",
    "RewardConfig",
    "SampleConfig",
    "ScoreConfig",
    "ScorerConfig",
    "Section",
    "SelectConfig",
    "checked",
]
