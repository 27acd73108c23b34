#!/usr/bin/env python3
"""Make a new webhook secret: `tfwatch rotate-secret` under the name that other tools' operators look for.

/opt/tfwatch/bin/python rotate_webhook_secret.py INTEGRATION [--overlap 24h] [--path-token] [--json] [-c CONFIG]
"""

from __future__ import annotations

import sys

try:
    from tfwatch.cli import main
except ImportError as error:
    sys.exit(f"{error}; run it with the Python that tfwatch is installed in: /opt/tfwatch/bin/python {sys.argv[0]}")

if __name__ == "__main__":
    sys.argv[1:1] = ["rotate-secret"]
    main()
