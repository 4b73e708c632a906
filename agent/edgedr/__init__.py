"""edgedr: a disaster-recovery agent for edge Kubernetes control planes."""

__version__ = "0.1.0"
