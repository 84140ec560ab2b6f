"""How well labels agree with gold labels: scores with intervals, confusion tables, and every disagreement."""

from reportlabel.evaluate.command import run_evaluate
from reportlabel.evaluate.score import ClassScore, Estimate, Evaluation, FindingScore, StatusScore, evaluate

__all__ = ["ClassScore", "Estimate", "Evaluation", "FindingScore", "StatusScore", "evaluate", "run_evaluate"]
