"""The same App under uvicorn's own HTTP protocol: what ours earns. `python plain.py PORT`."""

from __future__ import annotations

import sys

import uvicorn
from app import app

from firstword.serving import options

uvicorn.run(app, host="0.0.0.0", port=int(sys.argv[1]), **{**options(), "http": "httptools"})
