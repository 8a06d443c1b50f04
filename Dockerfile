# The image of weft for people with an engine. The same content as target/image/weft.tar, which
# `make image` makes without one: the root is prepared beforehand, so nothing is downloaded here.
#
#   cargo xtask image                  # target/image/root/amd64 (and target/image/weft.tar)
#   cargo xtask image --arch arm64     # target/image/root/arm64
#   docker buildx build --platform linux/amd64,linux/arm64 -t docker.io/weft/weft:0.1.0 .
#
# TARGETARCH is set by buildx and by buildah per platform.
FROM scratch
ARG TARGETARCH=amd64
COPY target/image/root/${TARGETARCH}/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL org.opencontainers.image.title="weft" \
      org.opencontainers.image.description="A Kubernetes pod network with NetworkPolicy" \
      org.opencontainers.image.url="https://weft.dev" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
