# diffsearch with all that it needs. docs/cluster.md says how to build it, for CPUs alone or with CUDA, and how to run it.
# 3.11 to 3.13: from 3.11 on Python reads pyproject.toml by itself.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 DIFFSEARCH_CACHE=/cache

# The packages: gigabytes, and another layer only when a dependency or a pin changes.
# PIP_EXTRA_INDEX_URL is read by pip itself: the page of torch's wheels for CPUs, where those are wanted.
ARG PIP_EXTRA_INDEX_URL
# Extras of diffsearch by their names, with commas: demo (the page), efficientnet (scores for colour images).
ARG EXTRAS=""
ARG EXTRA_PACKAGES=""
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = [wanted for name in sys.argv[1].split(',') if name for wanted in project['optional-dependencies'][name]]; \
        print(*project['dependencies'], *extras, sep='\n')" "${EXTRAS}" > requirements.txt \
    && python -m pip install --constraint constraints.txt --requirement requirements.txt ${EXTRA_PACKAGES}

# diffsearch itself: 5 MB.
COPY README.md LICENSE ./
COPY diffsearch diffsearch
RUN python -m pip install --no-deps . && rm -rf build ./*.egg-info && python -m pip check

ARG UID=1000
# --non-unique: where root builds, UID=$(id -u) is 0.
RUN useradd --uid "${UID}" --non-unique --create-home diffsearch && install --directory --owner diffsearch /work /cache
USER ${UID}
WORKDIR /work
COPY --chown=${UID} search_spaces search_spaces
COPY --chown=${UID} experiments experiments

# /work: study files, the store (.diffsearch) and reports. /cache: decoded data sets, weights that were downloaded.
VOLUME ["/work", "/cache"]
# `docker stop` is a Ctrl-C: the writes under way are finished.
STOPSIGNAL SIGINT
ENTRYPOINT ["diffsearch"]
CMD ["--help"]
