# The server in an image: `docker build --tag firstword .`; docs/deploying.md says how it is run.
# It serves /app/custom_llm.py: put your own there, by a mount or by `FROM firstword`.

# By tag and by digest: the tag is for people, the digest decides. Dependabot brings new ones.
FROM docker.io/library/python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS python

FROM python AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/firstword
COPY locks/image.txt locks/
RUN pip --python /opt/firstword/bin/python install --no-compile --require-hashes --only-binary :all: -r locks/image.txt
COPY LICENSE README.md pyproject.toml ./
COPY src src
RUN pip --python /opt/firstword/bin/python install --no-compile --no-deps --no-build-isolation . \
    && pip --python /opt/firstword/bin/python uninstall --yes flit-core
# Bytecode that is never compared with its source: nothing is compiled at start, and nothing written.
RUN /opt/firstword/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/firstword/lib

FROM python
LABEL org.opencontainers.image.title="firstword" \
      org.opencontainers.image.description="The custom LLM server for voice agents" \
      org.opencontainers.image.licenses="MIT"
# What a server does not need, an intruder does not find.
RUN pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/firstword /opt/firstword
COPY custom_llm.py /app/
WORKDIR /app
ENV PATH=/opt/firstword/bin:$PATH \
    HOME=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# By number, so that an orchestrator sees that it is not root. It owns nothing here.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import http.client, os, sys; line = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('FIRSTWORD_OPERATOR_PORT') or os.environ.get('FIRSTWORD_PORT') or 8000), timeout=2); line.request('GET', '/health'); sys.exit(line.getresponse().status != 200)"]
# The server is process 1 itself, so that the signal to stop reaches it.
ENTRYPOINT ["firstword"]
CMD ["serve", "custom_llm.py"]
