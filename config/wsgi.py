"""The WSGI application, for any server. Wrong settings end the process, with a sentence each."""

import gc
import os

import django
from django.conf import settings
from django.core.cache import close_caches
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries

from config.checks import refuse_wrong_settings
from config.postgresql import bound_statements, give_back_connection

gc.disable()  # what a start imports stays: looking at it hundreds of times is a tenth of its time
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)
refuse_wrong_settings()
bound_statements(settings.DATABASE_STATEMENT_SECONDS)

# Django asks every connection and cache before and after each request; few requests have used one.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
request_finished.disconnect(close_caches)  # neither of ours has anything to close
request_finished.connect(give_back_connection)

application = WSGIHandler()
# What is there now stays: the collector need not look at it again and again. A request leaves few
# cycles behind, so that the usual 700 objects make it look thirty times a flow for nothing.
gc.collect()
gc.freeze()
gc.enable()
gc.set_threshold(20_000, 20, 20)
