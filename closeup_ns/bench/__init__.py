"""The paper's experiments: protocols as data, cells that run one method on one scene, and the tables made of them."""
