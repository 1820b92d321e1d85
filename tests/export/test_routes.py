"""bve::dispatch as other ops: a routed model's graph answers as the model."""

import numpy as np
import torch

from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.convert import capture_cores
from bigvit_edge.export.graph import copy_program
from bigvit_edge.export.routes import write_routes
from bigvit_edge.models.dispatch import DISPATCH
from tests.export.core.test_partition import SIZE, make_blvit, make_weights


def test_a_routed_model_answers_as_before() -> None:
    model = make_weights(make_blvit())
    (graph,) = capture_cores(model, SIZE, (0.5,))
    program = copy_program(graph.exported)
    assert program.graph.find_nodes(op="call_function", target=DISPATCH)
    write_routes(program)
    assert not program.graph.find_nodes(op="call_function", target=DISPATCH)
    images = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    found = visit_layers(program, images, lambda *_: None)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
