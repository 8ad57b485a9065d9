"""How stable clusters are when masks are left out."""

import numpy as np
from panel_wall import panels, scan, shuffled, wall

from lift3d.association import associate
from lift3d.association.contacts import Contacts
from lift3d.association.stability import most_alike
from lift3d.scene.labelmaps import by_name


def test_the_most_similar_cluster_counts_over_anchors_that_both_give_one():
    cluster = np.int32([0, 0, 0, 0, 1, 1, 2, -1])
    other = np.int32([3, 3, 3, 1, 1, -1, -1, 0])
    np.testing.assert_allclose(most_alike(cluster, other), [3 / 4, 1 / 2, 0])
    nothing = np.full(8, -1, np.int32)
    np.testing.assert_array_equal(most_alike(cluster, nothing), [0, 0, 0])
    assert len(most_alike(nothing, cluster)) == 0


def test_pieces_merge_by_the_evidence_of_the_pairs_between_them():
    a, b = np.int32([0, 0, 1, 2]), np.int32([1, 2, 3, 4])
    contacts = Contacts.of(np.int32([0, 0, 1, 1, 2]), a, b)
    np.testing.assert_array_equal(contacts.between, [False, True, True, True])
    # Both pairs of the first contact count: 3 of 4 views; of the second 1 of 3.
    merged = contacts.merged(np.float64([2, 1, 1]), np.float64([2, 2, 3]), 0.5)
    np.testing.assert_array_equal(merged, [0, 0, 0, 0, 1])


def test_objects_that_hang_on_few_masks_are_less_sure_than_others():
    """Panels 2 and 3 are one mask in 10 of 24 views; in the others each is outlined well."""
    points = wall()
    scene, maps = scan(np.tile(np.linspace(-0.8, 1.8, 12), 2))
    whole = associate(points, scene, by_name(scene, shuffled(maps)))
    assert min(whole.confidence.values()) > 0.95
    joined = [np.minimum(m, 2) if i % 5 < 2 else m for i, m in enumerate(maps)]
    found = associate(points, scene, by_name(scene, shuffled(joined)))
    again = associate(points, scene, by_name(scene, shuffled(joined)))
    assert found.confidence == again.confidence
    sure = {
        panel: found.confidence[int(np.bincount(found.cloud.instance[at]).argmax())]
        for panel in (1, 2, 3)
        for at in [panels(points.xyz[:, 0]) == panel]
    }
    assert sure[1] > 0.95
    assert max(sure[2], sure[3]) < sure[1] - 0.05
