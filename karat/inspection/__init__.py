"""What a model file holds, as plain data: for ``karat inspect`` and for whoever calls it from Python."""

from karat.inspection.layer import describe_layer as describe_layer
from karat.inspection.model import describe_file as describe_file
from karat.inspection.model import describe_graph as describe_graph
