"""The Docker engine as a source. Nothing else speaks to it."""

from metering.docker.answers import parse_statistics
from metering.docker.client import Stream
from metering.docker.engine import DockerEngine, docker_engine

__all__ = ["DockerEngine", "Stream", "docker_engine", "parse_statistics"]
