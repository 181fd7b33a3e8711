"""What a model file holds, as plain data, for ``karat24 inspect`` and for calls from Python."""

from karat24.inspection.layer import describe_layer as describe_layer
from karat24.inspection.model import describe_file as describe_file
from karat24.inspection.model import describe_graph as describe_graph
