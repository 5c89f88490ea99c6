from clipper_topics.catalogue import Catalogue


def test_every_topic_says_how_it_is_compressed_whatever_the_default_of_a_cluster_is():
    topics = Catalogue()
    stored = {
        spec.name: spec.config["compression.type"]
        for spec in [*topics.fixed_topics(), topics.requests_topic("svm", "2", 1)]
    }
    plain = {name for name, kind in stored.items() if kind == "uncompressed"}
    assert plain == {topics.queries, topics.feedback, topics.control}
    assert set(stored.values()) == {"uncompressed", "producer"}
