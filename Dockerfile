# The image of every service of tuner's own: `tuner`, with this project's models/ and studies/.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/tuner
ENV PATH=/opt/tuner/bin:$PATH
WORKDIR /build
# What tuner depends on comes first, in a layer that a change of the code leaves alone.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['postgres'], sep='\n')" \
    >requirements.txt && pip install --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY tuner tuner
COPY models models
COPY studies studies
RUN pip install --no-deps .

FROM python:${PYTHON}-slim
# Numbers, since Kubernetes cannot tell from a name that a user is not root.
RUN groupadd --gid 10001 tuner \
    && useradd --uid 10001 --gid tuner --home-dir /var/lib/tuner --shell /usr/sbin/nologin tuner \
    && install --directory --owner tuner --group tuner --mode 700 /var/lib/tuner /var/lib/tuner/tmp
COPY --from=build /opt/tuner /opt/tuner
WORKDIR /project
COPY models models
COPY studies studies
# Locks of workers lie in TMPDIR: containers that share /var/lib/tuner see which of them have died.
ENV PATH=/opt/tuner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    TMPDIR=/var/lib/tuner/tmp \
    TUNER_HOME=/var/lib/tuner \
    TUNER_DATA=/data
USER 10001:10001
ENTRYPOINT ["tuner"]
CMD ["--help"]
