# maediff on the CPU, with weights. It needs no network and no writable file system except /tmp:
#
#   docker build --build-arg TORCH_INDEX=INDEX -t maediff .
#   docker run --rm --network none --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#       -v "$PWD:/data" -w /data maediff detect scan_T1w.nii.gz -o results
#   docker run ... --entrypoint maediff-bids maediff BIDS_DIR OUT_DIR participant
#
# TORCH_INDEX is the package index of the CPU builds of torch, see pytorch.org. Without it, pip
# installs the default build, which includes CUDA and several GB more.
FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/maediff
COPY constraints.txt /src/
# Only torch itself comes from its index, which lacks many versions of other packages.
RUN /opt/maediff/bin/pip install -c /src/constraints.txt --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml PACKAGE.md LICENSE /src/
COPY src /src/src
RUN /opt/maediff/bin/pip install -c /src/constraints.txt /src

FROM python:3.12-slim
LABEL org.opencontainers.image.title=maediff org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /opt/maediff /opt/maediff
COPY LICENSE CITATION.cff /usr/share/doc/maediff/
ENV PATH=/opt/maediff/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 1000 --no-create-home --home-dir /tmp maediff
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["maediff"]
CMD ["--help"]
