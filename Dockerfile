# The web server, and with another command the worker: docker run handrail python manage.py run_worker
# Build: docker build -t handrail .
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY requirements.txt /tmp/requirements.txt
RUN /opt/venv/bin/pip install -r /tmp/requirements.txt

FROM python:3.13-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin handrail
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY . .
# WhiteNoise serves the manifest's names, which production settings compute; the secrets end with this line.
RUN SECRET_KEY=only-while-static-files-are-collected JWT_SECRET=only-while-static-files-are-collected \
    FIELD_ENCRYPTION_KEYS=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= \
    python manage.py collectstatic --noinput --verbosity 0 \
    && mkdir -p var && chown handrail var
USER handrail
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# One process a container; docs/deployment.md has the arithmetic of threads.
CMD ["granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "1", \
     "--blocking-threads", "32", "--backpressure", "128", "--workers-kill-timeout", "30", "config.wsgi:application"]
