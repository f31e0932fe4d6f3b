# One image for the API, the worker, the migration and the embedded service: what runs is the command.
#   docker build -t pals .                             CPU
#   docker build -t pals-cuda --build-arg TORCH=cuda . NVIDIA GPUs

FROM python:3.12-slim AS build
ARG TORCH=cpu
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /app

# The dependencies alone first: a change of the source leaves this layer as it is.
COPY pyproject.toml requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$TORCH" in \
      cpu) index="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
      cuda) index="" ;; \
      *) echo "TORCH is cpu or cuda, not $TORCH" >&2; exit 1 ;; \
    esac && \
    pip install -c requirements.lock setuptools && \
    pip install -c requirements.lock $index --no-build-isolation -e '.[onnx,s3]'

COPY . .
RUN pip install --no-deps --no-build-isolation -e . && python -m compileall -q /app

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/pals --shell /usr/sbin/nologin pals && \
    install -d -o pals -g pals /var/lib/pals /var/lib/pals-artifacts
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PALS_HOST=0.0.0.0 \
    PALS_DATA_DIR=/var/lib/pals
WORKDIR /var/lib/pals
USER pals
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('PALS_PORT', '8000') + '/healthz', timeout=4)"]
ENTRYPOINT ["pals"]
CMD ["serve"]
