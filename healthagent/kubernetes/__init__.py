"""What the agent tells Kubernetes: the role of its pod, as a label that Services select by."""

from .api import NoApi, PodApi
from .label import RoleLabel
from .metrics import label_families

__all__ = ["NoApi", "PodApi", "RoleLabel", "label_families"]
