#!/usr/bin/env python
"""Django's command line for Handrail."""

import gc
import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    gc.set_threshold(20_000, 20, 20)  # as in config/wsgi.py: what a start imports stays
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    execute_from_command_line(sys.argv)
