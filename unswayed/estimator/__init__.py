"""The scikit-learn face: `RobustClassifier` trains, audits and predicts as any other classifier does.

>>> from unswayed import RobustClassifier
>>> RobustClassifier("gce", head="edge-masked(keep=.2)", random_state=0)
RobustClassifier(head='edge-masked(keep=.2)', method='gce', random_state=0)
"""

from __future__ import annotations

from unswayed.estimator.classifier import RobustClassifier

__all__ = ["RobustClassifier"]
