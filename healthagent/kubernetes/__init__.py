"""What the agent tells Kubernetes: the role of its pod, as a label that Services select by."""

from healthagent.kubernetes.api import NoApi, PodApi
from healthagent.kubernetes.label import RoleLabel
from healthagent.kubernetes.metrics import label_families

__all__ = ["NoApi", "PodApi", "RoleLabel", "label_families"]
