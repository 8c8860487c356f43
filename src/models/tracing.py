"""Whether torch traces a model into a graph that is to be exported."""

from collections.abc import Callable

import torch

CAN_EXPORT = hasattr(torch.compiler, "is_exporting")  # torch 2.6 cannot tell, and exports nothing here
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)
