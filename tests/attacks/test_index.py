"""The corpus by what it learned from: which attack on which tool, and which tests here would notice it.

Tests that stood elsewhere already are named where they stand; this module checks that every one of them exists, so a lesson cannot be lost
by renaming its test.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent

LESSONS: dict[str, tuple[str, ...]] = {
    "MLflow CVE-2023-1177, -2780, -6831, CVE-2024-1560, CVE-2026-2614: paths out of the root, by encoding, separator and scheme": (
        "attacks/test_places.py::test_a_path_is_what_it_says_and_nothing_is_decoded",
        "attacks/test_places.py::test_a_name_in_the_store_is_no_path",
        "attacks/test_routes.py::test_no_way_of_writing_a_path_goes_around",
        "packaging/test_manifest.py::test_a_path_that_could_leave_a_bundle_is_refused",
        "packaging/test_paths.py::test_an_mlflow_model_cannot_name_a_file_outside_of_it",
    ),
    "MLflow CVE-2026-0545: routes outside of the authentication": (
        "attacks/test_routes.py::test_without_a_key_every_route_is_401_whatever_the_method",
        "attacks/test_routes.py::test_no_header_takes_the_place_of_a_key",
        "serving/test_entrance.py::test_a_route_that_nobody_thought_of_needs_the_most",
    ),
    "MLflow CVE-2026-2393, LMDeploy CVE-2026-33626: the server fetches what a request names": (
        "attacks/test_places.py::test_nothing_is_fetched_whatever_the_scheme",
        "attacks/test_places.py::test_the_container_s_place_is_a_directory_here_or_in_cloud_storage_or_nothing",
        "attacks/test_requests.py::test_a_hostile_body_is_the_callers_mistake_in_little_time_and_memory",
    ),
    "MLflow CVE-2025-10279, CVE-2026-4137: a model swapped in a directory that others may write": (
        "attacks/test_bundles.py::test_a_model_swapped_between_check_and_load_is_not_loaded",
        "attacks/test_bundles.py::test_a_manifest_swapped_after_the_check_changes_nothing_that_is_loaded",
        "attacks/test_bundles.py::test_a_file_swapped_for_a_link_is_not_followed",
        "packaging/test_bundle.py::test_files_are_read_only_and_directories_private",
        "backends/local/test_parts.py::test_a_directory_that_others_may_enter_is_not_trusted",
    ),
    "BentoML CVE-2024-2912, CVE-2025-27520: a pickle in a request": (
        "attacks/test_requests.py::test_a_pickle_in_a_request_is_never_opened",
    ),
    "BentoML CVE-2026-27905, Python CVE-2025-4138, -4330, -4517: links and devices in archives": (
        "packaging/test_archive.py::test_a_hostile_archive_is_refused_and_leaves_nothing",
        "packaging/test_archive.py::test_a_sparse_entry_is_refused",
        "packaging/test_bundle.py::test_a_link_in_place_of_a_file_is_refused_though_the_content_is_right",
    ),
    "Archives that unpack to more than the machine has": (
        "packaging/test_archive.py::test_a_bomb_stops_at_the_limit_of_bytes",
        "packaging/test_archive.py::test_a_bomb_in_a_header_is_not_read_into_memory",
        "packaging/test_archive.py::test_too_many_entries_are_refused",
        "attacks/test_requests.py::test_a_compressed_body_is_refused_and_not_unpacked",
    ),
    "BentoML CVE-2026-33744, CVE-2026-44345: names that become commands": (
        "attacks/test_names.py::test_no_name_of_ours_may_be_one",
        "attacks/test_names.py::test_a_command_that_an_error_proposes_may_be_pasted",
        "attacks/test_bundles.py::test_a_manifest_that_lies_is_refused_by_who_reads_it_first",
        "attacks/test_bundles.py::test_a_revision_s_id_reaches_no_file_name_and_no_command_line",
    ),
    "BentoML CVE-2024-9056: boundaries of multipart bodies": (
        "attacks/test_requests.py::test_a_boundary_costs_nothing_for_nobody_reads_parts",
    ),
    "Ray CVE-2023-48022, CVE-2026-27482: open to the network, and a filter that forgot a method": (
        "backends/local/test_backend.py::test_an_endpoint_listens_on_loopback_unless_asked_otherwise",
        "backends/local/test_access.py::test_an_address_that_others_reach_is_refused_without_keys_before_anything_is_written",
        "serving/test_arguments.py::test_an_address_that_others_reach_is_refused_without_keys",
        "attacks/test_routes.py::test_without_a_key_every_route_is_401_whatever_the_method",
    ),
    "Ray CVE-2026-27482 and DNS rebinding: a page in a browser reaches loopback": (
        "serving/test_origins.py::test_any_other_name_is_misdirected",
        "serving/test_origins.py::test_pages_of_other_sites_may_not",
        "backends/local/test_access.py::test_a_page_of_another_site_reaches_nothing_on_loopback",
    ),
    "TorchServe CVE-2023-43654: anybody registers a model from any address": (
        "attacks/test_places.py::test_nothing_is_fetched_whatever_the_scheme",
        "attacks/test_routes.py::test_without_a_key_every_route_is_401_whatever_the_method",
    ),
    "sagemaker CVE-2026-1777, -8596, -8597: secrets in what others can read": (
        "serving/test_keyring.py::test_a_key_is_shown_once_and_only_its_hash_is_kept",
        "backends/local/test_access.py::test_the_owner_shows_a_ticket_and_never_the_secret",
        "backends/local/test_access.py::test_the_key_of_a_caller_is_not_inherited_by_the_processes_that_serve",
        "serving/test_entrance.py::test_the_secret_goes_no_further_than_the_gate",
        "test_config.py::test_a_secret_in_the_file_is_refused_with_the_variable_to_set_and_not_shown",
        "observe/test_redact.py::test_a_text_that_holds_a_secret_loses_only_the_secret",
    ),
    "azure-core CVE-2026-21226: a pickled token": (
        "serving/test_owner.py::test_no_other_text_is_a_ticket",
    ),
    "picklescan CVE-2025-10155, -10156, -10157, PyTorch CVE-2025-32434: scanners and safe modes that are not": (
        "attacks/test_bundles.py::test_a_pickle_in_any_dress_is_not_opened",
        "attacks/test_bundles.py::test_joblib_in_any_compression_is_not_opened",
        "packaging/flavours/test_pickles.py::test_a_forged_bundle_runs_nothing_whatever_its_manifest_says",
        "packaging/flavours/test_pickles.py::test_functions_of_numpy_and_scikit_learn_are_not_safe_by_their_address",
    ),
    "Request smuggling": (
        "attacks/test_requests.py::test_what_two_parsers_might_read_differently_is_refused_and_nothing_behind_it_answered",
        "serving/test_http.py::test_malformed_requests_get_their_status_as_json_and_the_connection_ends",
        "serving/test_http.py::test_nothing_after_a_refused_request_is_answered",
    ),
    "Header and log injection": (
        "attacks/test_requests.py::test_what_is_sent_back_is_harmless",
        "serving/test_entrance.py::test_what_a_caller_sends_cannot_forge_a_line",
        "serving/test_entrance.py::test_who_is_calling_cannot_be_made_up",
    ),
    "OWASP API4: one caller takes everything": (
        "serving/test_ratelimit.py::test_no_stretch_of_time_lets_more_through_than_burst_and_rate",
        "serving/test_ratelimit.py::test_memory_is_bounded_and_nobody_known_is_forgotten",
        "serving/test_entrance.py::test_a_body_is_not_read_from_who_has_no_key",
        "serving/test_http.py::test_a_body_that_drips_is_cut_off_though_it_never_stops",
    ),
    "An audit log that was changed afterwards": (
        "serving/test_audit.py::test_a_changed_byte_in_any_line_is_found",
        "serving/test_audit.py::test_a_line_that_is_missing_doubled_or_moved_is_found",
        "serving/test_audit.py::test_an_end_that_was_cut_off_is_found_by_an_anchor_kept_elsewhere",
    ),
}  # fmt: skip


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_has_tests_that_exist(lesson):
    for node in LESSONS[lesson]:
        file, _, name = node.partition("::")
        assert name in functions(TESTS / file), node


def test_every_attack_of_this_directory_is_in_the_index():
    listed = {node for nodes in LESSONS.values() for node in nodes}
    own = {
        f"attacks/{path.name}::{name}"
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
        for name in functions(path)
        if name.startswith("test_")
    }
    beside = {node.partition("::")[2] for node in own - listed}
    assert beside <= OTHERS, beside - OTHERS


OTHERS = {
    "test_a_predict_key_reads_nothing_but_predictions",
    "test_every_health_route_is_one_that_the_code_answers",
    "test_a_request_in_the_body_of_another_is_a_body",
    "test_a_key_that_occurs_twice_is_refused_always",
    "test_the_server_outlives_all_of_it",
    "test_a_flavour_is_one_of_ours_and_no_module",
    "test_a_manifest_of_another_shape_is_refused_in_words_of_ours",
    "test_what_is_no_plain_file_is_not_read",
    "test_a_key_s_name_cannot_paint_over_a_terminal",
}
"""Of this directory, and no lesson of somebody else's."""
