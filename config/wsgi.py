"""The WSGI application, for any server. Wrong settings end the process, with a sentence each."""

import os

import django
from django.core.handlers.wsgi import WSGIHandler

from config.checks import refuse_wrong_settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)
refuse_wrong_settings()
application = WSGIHandler()
