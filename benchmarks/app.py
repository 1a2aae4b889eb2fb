"""The firstword server that is measured: the default configuration, with its model at LLM_BASE_URL."""

import os

from firstword import App

app = App(base_url=os.environ["LLM_BASE_URL"])
