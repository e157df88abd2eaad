"""An embedder for pattern memory: a sentence model, asked a line of JSON at a time.

    pip install sentence-transformers
    coreflow serve --set memory.embedder=exec --set memory.dimension=384 \
        --set 'memory.embedder_command=["python3", "examples/embedder.py"]'

A line that comes is {"id", "texts": [...]}; the answer is {"id", "vectors": [[...], ...]}, a vector for
each text in order, or {"id", "error"}. Nothing else may go to standard output.
"""

import json
import sys

from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1] if len(sys.argv) > 1 else "all-MiniLM-L6-v2")
for line in sys.stdin:
    request = json.loads(line)
    try:
        vectors = model.encode(request["texts"], normalize_embeddings=True).tolist()
        answer = {"id": request["id"], "vectors": vectors}
    except Exception as error:
        answer = {"id": request["id"], "error": str(error)}
    print(json.dumps(answer), flush=True)
