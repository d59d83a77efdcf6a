"""The reward-hacking audit: attacks against honest responses, under any rewards."""

from bestofn.evals.audit.run import run_audit as run_audit
