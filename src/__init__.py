"""ecoscale: Mask2Former-style segmentation made cheap to run. The commands of this package are `python -m src.NAME`."""

import signal
import sys

# While Python looks for NAME and imports, which takes seconds, Ctrl-C ends a command without a stack trace.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
