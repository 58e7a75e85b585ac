# batch_etl as a container: one image for one-shot runs, the daemon and the UI.
#   docker build -t batch-etl .
#   docker run --rm -e ANTHROPIC_API_KEY -v batch-etl-data:/srv/data batch-etl run content_moderation --partition 2026-11-01
# All state lies in the volume /srv/data; pipelines of your own are mounted, and named with --defs.
FROM python:3.12-slim

RUN useradd --system --create-home --home-dir /srv --uid 10001 batchetl \
    && mkdir /srv/data && chown batchetl /srv/data

WORKDIR /opt/batch_etl
COPY pyproject.toml constraints.txt README.md LICENSE dagster.yaml workspace.yaml ./
COPY batch_etl ./batch_etl
RUN pip install --no-cache-dir --constraint constraints.txt '.[postgres]'

USER batchetl
WORKDIR /srv
ENV BATCH_ETL_HOME=/srv/data PYTHONUNBUFFERED=1
VOLUME /srv/data
ENTRYPOINT ["batch-etl"]
CMD ["doctor"]
