# One image for every stage: the command is the stage's name, as on the command line.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/spanmill
COPY requirements.txt ./
RUN /opt/spanmill/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE spanmill.py ./
COPY agents agents
COPY schemas schemas
COPY streams streams
RUN /opt/spanmill/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /var/lib/spanmill spanmill \
    && install --directory --owner=spanmill /var/cache/spanmill
COPY --from=build /opt/spanmill /opt/spanmill
# Kernels for any CPU, compiled here: those for the builder's own CPU would be compiled again on another one, for most
# of a minute. The scan is about 7 % slower for it.
ENV PATH=/opt/spanmill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/var/cache/spanmill
USER 10001
WORKDIR /var/lib/spanmill
COPY tools/compile_kernels.py /opt/spanmill/compile_kernels.py
RUN python /opt/spanmill/compile_kernels.py
# Own metrics, OTLP over gRPC, OTLP over HTTP.
EXPOSE 3200 4317 4318
ENTRYPOINT ["spanmill"]
CMD ["--help"]
