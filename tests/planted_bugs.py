"""Bugs to plant, one at a time, each of which a test must find.

    python -m tests.planted_bugs              # all of them, some minutes per entry at worst
    python -m tests.planted_bugs warm_up ...  # some of them, by name
    python -m tests.planted_bugs --list

Each entry names a symbol, what is replaced within its source, and the tests that must fail then.
The runner works on a copy of the tree. It says `caught` where a test fails and `SURVIVED` where
all pass; `broken` says that the tests could not even be run, which finds nothing. It ends with 1
where an entry is not caught. `test_planted_bugs.py` keeps the entries in step with the sources.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 900
_OUTCOMES = {0: "SURVIVED", 1: "caught"}


@dataclasses.dataclass(frozen=True)
class Bug:
    """One wrong line.

    Attributes:
      name: what is wrong.
      symbol: `module:qualified.name`, without the package's name; a function, method or class.
      old: what is replaced, once in the symbol's source.
      new: by what.
      tests: files or tests, of which at least one must fail.
    """

    name: str
    symbol: str
    old: str
    new: str
    tests: tuple[str, ...]


def _bug(name: str, symbol: str, old: str, new: str, *tests: str) -> Bug:
    return Bug(name, symbol, old, new, tuple(f"tests/{test}" for test in tests))


BUGS = (
    # Training
    _bug("augmentation_is_left_out", "training.step:CrossEntropy.__call__",
         "augment(augment_key, batch, self.recipe)", "batch.x", "training/test_step.py"),
    _bug("token_ids_are_rounded", "training.step:forward_train",
         "x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x",
         "x.astype(dtype).astype(x.dtype)", "training/test_tokens.py"),
    _bug("a_log_forgets_its_pad_id", "training.manifest:_read_normalisation",
         '_integer(fields["pad"])', "0", "training/test_tokens.py"),
    _bug("ids_beyond_the_vocabulary_pass", "validation.inputs:check_tokens",
         "most >= tokens.vocabulary", "most > tokens.vocabulary", "training/test_tokens.py"),
    _bug("every_step_draws_alike", "training.step:take_step",
         "jax.random.fold_in(key, state.step)", "key", "training/test_step.py"),
    _bug("augmentation_and_dropout_share_a_key", "training.step:CrossEntropy.__call__",
         "= jax.random.split(key)", "= (key, key)", "training/test_step.py"),
    _bug("noise_is_drawn_as_variance", "training.step:take_step",
         "gradient, gradient_noise, noise", "gradient, gradient_noise**2, noise",
         "training/test_step.py"),
    _bug("black_is_the_mean_colour", "training.step:augment",
         "normalisation.apply(jnp.zeros(1))", "jnp.zeros(1)", "training/test_step.py"),
    _bug("mirrors_are_left_out", "training.augmentation:flip_images",
         "x[:, :, ::-1]", "x", "training/test_step.py"),
    _bug("all_images_shift_alike", "training.augmentation:shift_images",
         "jax.random.randint(key, (2, n), 0, 2 * by + 1)",
         "jnp.broadcast_to(jax.random.randint(key, (2, 1), 0, 2 * by + 1), (2, n))",
         "training/test_step.py"),
    _bug("adam_has_no_weight_decay", "training.recipe:optimizer_of_form",
         'form.optimizer != "adamw"', 'form.optimizer == "sgd"', "training/test_fit.py"),
    _bug("decay_toward_the_start_is_toward_zero", "training.recipe:decay_toward_start",
         "weight_decay * (w - w0)", "weight_decay * w", "training/test_fit.py"),
    _bug("clipping_is_left_out", "training.recipe:optimizer_of_form",
         "form.clip_norm is not None", "False", "training/test_fit.py"),
    _bug("warm_up_is_left_out", "training.recipe:learning_rate_schedule",
         "if warmup == 0:", "if True:", "training/test_recipe.py"),
    _bug("milestones_wait_for_the_warm_up", "training.recipe:learning_rate_schedule",
         "m * steps_per_epoch - warmup", "m * steps_per_epoch", "training/test_recipe.py"),
    _bug("the_cosine_ends_late", "training.recipe:learning_rate_schedule",
         "cosine_decay_schedule(peak, max(total - warmup, 1))",
         "cosine_decay_schedule(peak, total)", "training/test_recipe.py"),
    _bug("every_epoch_has_one_order", "training.step:epoch_batches",
         "jax.random.fold_in(key, epoch)", "key", "training/test_fit.py"),
    _bug("smoothing_takes_the_label_away", "training.step:cross_entropy",
         "(1 - smoothing) * losses + smoothing * uniform", "losses + smoothing * uniform",
         "training/test_fit.py"),
    _bug("the_start_is_not_what_was_given", "training.fit:fit",
         "if variables is None:", "if True:", "training/test_fit.py"),
    _bug("many_runs_see_one_subset", "training.fit:fit_many",
         "rows = _check_subsets(subsets, n_seeds, dataset.size)",
         "rows = _check_subsets(subsets, n_seeds, dataset.size)[:1].repeat(n_seeds, 0)",
         "training/test_fit.py"),
    # Studies
    _bug("references_see_the_forget_set", "studies.engine:_forget",
         "split.retain for split in splits",
         "np.concatenate([split.retain, split.forget]) for split in splits",
         "studies/test_compare_fairness.py"),
    _bug("methods_start_from_the_reference", "studies.cells:_Question._unlearn",
         "case.model, case.original, task", "case.model, case.reference.variables, task",
         "studies/test_compare_fairness.py"),
    _bug("the_reference_is_audited_on_other_folds", "auditing.evaluation:Evaluation.judge",
         "key, case.model, case.reference.variables",
         "jax.random.key(1), case.model, case.reference.variables",
         "studies/test_compare_fairness.py"),
    _bug("references_have_the_originals_keys", "studies.engine:_forget",
         "[k[2] for k in keys]", "[k[1] for k in keys]",
         "studies/test_compare_fairness.py"),
    _bug("the_victim_has_the_attack_s_key", "studies.engine:_attack",
         '"victim", train_key', '"victim", attack_key', "studies/test_poison_keys.py"),
    _bug("retrain_has_the_victim_s_key", "studies.engine:_attack",
         "(retrain_key.typed(), place.model, victim", "(train_key.typed(), place.model, victim",
         "studies/test_poison_keys.py"),
    _bug("attacks_share_a_key", "studies.engine:_poison",
         "attacks_key.fold_in(index)", "attacks_key",
         "studies/test_poison_keys.py"),
    _bug("the_victim_trains_on_clean_data", "studies.engine:_attack",
         "train_key, poisoned.dataset, None", "train_key, task.train, None",
         "studies/test_poison.py", "auditing/test_poison_effects.py"),
    _bug("the_poisons_are_not_the_forget_set", "studies.poisoned:poisoned_task",
         "(~is_poison, is_poison)", "(is_poison, ~is_poison)", "studies/test_poison.py"),
    # Auditing
    _bug("the_classifier_sees_its_test_fold", "auditing.membership:MembershipInference"
         "._cross_validate", "self._classifier(seed), x[train], y[train]",
         "self._classifier(seed), x, y", "auditing/test_membership.py"),
    _bug("the_false_positive_rate_exceeds_its_target", "auditing.scores:tpr_at_fpr",
         "min(allowed, len(others) - 1)", "min(allowed + 1, len(others) - 1)",
         "auditing/test_scores.py"),
    _bug("relearning_leaves_out_what_was_retained", "auditing.relearn:RelearnTime.__call__",
         "task.train,", "task.forget,", "auditing/test_relearn.py"),
    _bug("lira_compares_with_one_side_twice", "auditing.lira:lira_scores",
         "~shadows.is_in", "shadows.is_in", "auditing/test_lira.py"),
    _bug("the_largest_margin_has_no_bin", "auditing.klom:_histograms",
         "np.minimum((bins * scaled).astype(int), bins - 1)", "(bins * scaled).astype(int)",
         "auditing/test_ensembles.py"),
    _bug("the_interval_is_one_sided", "auditing.intervals:clopper_pearson",
         "(1 - confidence) / 2", "1 - confidence", "auditing/test_intervals.py"),
    _bug("a_standard_error_is_a_deviation", "auditing.intervals:mean_and_error",
         " / np.sqrt(sample.size)", "", "auditing/test_intervals.py", "auditing/test_ensembles.py"),
    _bug("the_gap_keeps_its_sign", "auditing.evaluate:average_gap",
         "abs(metrics[name] - reference[name])", "(metrics[name] - reference[name])",
         "auditing/test_evaluate.py"),
    _bug("the_threshold_calls_most_a_member", "auditing.threshold:best_threshold",
         "quality == quality.max())[-1]", "quality == quality.max())[0]",
         "auditing/test_threshold.py"),
    # Unlearning
    _bug("scrub_has_one_batch_order", "unlearning.scrub:Scrub.__call__",
         "host_key(key).fold_in(epoch)", "host_key(key)",
         "unlearning/test_batch_order.py"),
    _bug("neg_grad_plus_has_one_batch_order", "unlearning.neg_grad_plus:NegGradPlus.__call__",
         "run_key.fold_in(epoch)", "run_key",
         "unlearning/test_batch_order.py"),
    _bug("relabelling_has_one_batch_order", "unlearning.random_label:relabel",
         "host_key(key).fold_in(epoch)", "host_key(key)", "unlearning/test_batch_order.py"),
    _bug("l1_sparse_has_one_batch_order", "unlearning.l1_sparse:L1Sparse.__call__",
         "host_key(key).fold_in(epoch)", "host_key(key)", "unlearning/test_batch_order.py"),
    _bug("newton_converges_by_decree", "unlearning.ntk_scrub.softmax:newton_cg",
         "end.residual <= settings.tol", "end.newton >= 0", "unlearning/test_ntk_scrub.py",
         "unlearning/test_ntk_softmax.py"),
    _bug("distillation_forgets_its_temperature", "unlearning.scrub:distillation_loss",
         "temperature**2 * ", "", "unlearning/test_scrub.py"),
    _bug("the_teacher_learns_from_the_student", "unlearning.scrub:distillation_loss",
         "jnp.exp(log_p) * (log_p - log_q)", "jnp.exp(log_q) * (log_q - log_p)",
         "unlearning/test_scrub.py"),
    _bug("ascent_descends", "unlearning.gradient_ascent:GradientAscent.__call__",
         "sign=-1.0", "sign=1.0", "unlearning/test_effect.py::test_ends_nearer_to_retrain_than_the"
         "_original_is[gradient_ascent]"),
    _bug("fine_tuning_sees_the_forget_set", "unlearning.fine_tune:FineTune.__call__",
         "variables, task.retain, self", "variables, task.train, self",
         "unlearning/test_matrix.py::test_counts_its_cost_as_a_hand_does"),
    _bug("neg_grad_plus_weighs_the_wrong_way", "unlearning.neg_grad_plus:_Difference.__call__",
         "self.retain_weight * retain - self.forget_weight * forget",
         "self.forget_weight * retain - self.retain_weight * forget",
         "unlearning/test_neg_grad_plus.py"),
    _bug("boundary_shrink_moves_to_its_own_class", "unlearning.boundary_shrink:"
         "nearest_wrong_classes", "jnp.where(own, -jnp.inf, logits)", "logits",
         "unlearning/test_boundary.py"),
    _bug("boundary_shrink_steps_down_the_loss", "unlearning.boundary_shrink:fgsm",
         "- step * jnp.sign", "+ step * jnp.sign", "unlearning/test_boundary.py"),
    _bug("the_l1_penalty_never_fades", "unlearning.l1_sparse:L1Sparse.__call__",
         " * (1 - epoch / recipe.epochs)", "", "unlearning/test_l1_sparse.py"),
    _bug("salun_takes_the_smallest", "unlearning.salun:saliency_mask",
         "jnp.argsort(-sizes)", "jnp.argsort(sizes)", "unlearning/test_random_label.py"),
    _bug("influence_goes_the_other_way", "unlearning.influence:_difference",
         "share * (f - r)", "share * (r - f)", "unlearning/test_influence.py"),
    _bug("newton_scrub_climbs", "unlearning.newton_scrub:_newton_step",
         "lambda w, d: w - d, params, step", "lambda w, d: w + d, params, step",
         "unlearning/test_newton_scrub.py"),
    _bug("fisher_noise_has_its_variance_as_deviation", "unlearning.fisher_forgetting:"
         "gaussian_around", "jnp.sqrt(v) * z", "v * z", "unlearning/test_fisher_forgetting.py"),
    # Poisoning
    _bug("placed_poisons_have_the_weights_of_added_ones",
         "poisoning.total_gradient.attack:TotalGradientAttack._game",
         "(1 - m / n, m / n)", "(n / (n + m), m / (n + m))", "poisoning/test_total_gradient.py"),
    _bug("the_ball_is_in_units_of_the_network", "poisoning.bounds:_region",
         "        std,\n", "        std * 0 + 1,\n", "poisoning/test_frame.py",
         "poisoning/test_gradients.py"),
    _bug("poisons_keep_their_labels", "poisoning.placing:place",
         "y=replace_rows(clean.y, rows, y)", "y=clean.y", "poisoning/test_frame.py",
         "poisoning/test_label_flip.py"),
    _bug("the_runner_up_is_the_label", "poisoning.label_flip:flip_by_logits",
         "jnp.argmax(jnp.where(own, -jnp.inf, logits), axis=1)", "jnp.argmax(logits, axis=1)",
         "poisoning/test_label_flip.py"),
    _bug("matching_descends_the_wrong_way", "poisoning._matching:step_all",
         "jnp.sign(slopes)", "-jnp.sign(slopes)", "poisoning/test_gradient_matching.py"),
    _bug("canceling_adds_up", "poisoning._canceling:Canceling.residual",
         "clean + balance.share * poison", "clean - balance.share * poison",
         "poisoning/test_gradient_canceling.py"),
    _bug("the_kept_noise_is_not_the_noise", "poisoning.gaussian_poison:GaussianPoison.__call__",
         '"noise": noise,', '"noise": -noise,', "poisoning/test_gaussian_poison.py"),
    # Forging
    _bug("forging_takes_the_worst", "forging.greedy:GreedyForger.search",
         "jnp.argmin(scores)", "jnp.argmax(scores)", "forging/test_greedy.py"),
    _bug("exchanges_ignore_the_cross_term", "forging.swap:_exchange_one",
         " - 2 * rows", "", "forging/test_swap.py"),
    _bug("the_replay_judges_the_start", "forging.replay:_replay_share",
         "read(segment + 1), norm", "read(segment), norm", "forging/test_verify.py"),
    _bug("counters_need_not_agree", "forging.norms:error_between",
         "return math.inf", "return 0.0", "forging/test_norms.py"),
    _bug("the_norm_is_not_squared", "forging.norms:_distance",
         "d * d", "abs(d)", "forging/test_norms.py"),
    _bug("any_network_goes_on_with_a_log", "training.logged_run:_network_differences",
         'differences({"network": network}, {"network": theirs})', "[]",
         "training/test_trajectory.py"),
    _bug("another_jax_is_another_network", "training.logged_run:_network_differences",
         "then != now", "False", "training/test_trajectory.py"),
    _bug("every_checkpoint_rewrites_the_manifest", "training.logged_run:TrajectoryWriter.append",
         "self._named // _LAG", "0", "training/test_trajectory.py"),
    _bug("an_interrupted_log_leaves_checkpoints_unnamed",
         "training.logged_run:_Background.__exit__", "self._attempt(self._log.name_all)", "pass",
         "training/test_trajectory.py"),
    # Defences
    _bug("defences_drop_the_least_suspicious", "defences._dropping:highest",
         "np.argsort(-scores", "np.argsort(scores", "defences/test_gradient_filters.py"),
    _bug("sever_does_not_centre", "defences.sever:_spread_product",
         "weights * (u - weights @ u / weights.sum())", "weights * u",
         "defences/test_gradient_filters.py"),
    _bug("neighbours_agree_with_themselves", "defences.deep_knn:DeepKnn.__call__",
         "kneighbors(return_distance=False)", "kneighbors(h, return_distance=False)",
         "defences/test_feature_filters.py"),
    # Kernels
    _bug("chunks_weigh_alike", "kernels.empirical_risk:risk_gradient",
         "x.shape[0] / n, jax.grad", "1.0 / n, jax.grad", "kernels/test_empirical_risk.py"),
    _bug("cg_leaves_out_the_damping", "kernels.krylov:cg",
         "damped(matvec, damping)", "damped(matvec, 0 * damping)", "kernels/test_solvers.py"),
    _bug("products_along_the_wrong_weights", "kernels.per_example:GradientOperator.rmatvec",
         "u @ _losses", "jnp.abs(u) @ _losses", "kernels/test_per_example.py"),
    # Losses that mix their examples
    _bug("probes_take_rows_of_one_label", "validation.separability:_three_rows",
         "gaps = np.where(new, gaps, 0) if new.any() else gaps", "pass",
         "kernels/test_separability.py"),
    _bug("a_verdict_not_reached_is_kept", "validation.separability:_remembered",
         "if verdict is None:", "if False:", "kernels/test_separability.py"),
    _bug("small_outputs_may_mix", "validation.separability:_compare",
         "> tolerance * size", "> tolerance", "kernels/test_separability.py"),
    _bug("one_row_without_a_gradient_excuses_all", "validation.separability:_compare",
         "            continue\n", "            return None\n", "kernels/test_separability.py"),
    _bug("a_sum_passes_for_a_mean", "validation.separability:_judge_loss",
         'return "sums" if sums else verdict', "return verdict", "kernels/test_separability.py"),
    _bug("sigmoids_pass_for_a_softmax", "validation.separability:_judge_sums",
         "inside and np.allclose(outputs.sum(1), 1, atol=1e-3)", "inside",
         "validation/test_silent_inputs.py"),
    # Checks of data
    _bug("minus_zero_is_another_number", "validation.shared_rows:_hash",
         "block.reshape(len(block), width) + 0", "block.reshape(len(block), width)",
         "validation/test_silent_inputs.py"),
    _bug("copies_are_counted_of_the_first_side", "validation.shared_rows:count_shared",
         "sorted((mine, theirs), key=len)", "(mine, theirs)", "validation/test_silent_inputs.py"),
    _bug("an_array_at_a_reused_address_is_the_old_one", "validation.shared_rows:_Handle.__eq__",
         "mine is not None and mine is other.array()", "self.name == other.name",
         "validation/test_silent_inputs.py"),
    _bug("pixels_far_below_zero_are_quiet", "validation.inputs:_warn_of_range",
         "max(map(abs, ends)) > FAR", "max(ends) > FAR", "validation/test_silent_inputs.py"),
    _bug("the_range_is_taken_before_the_normalisation", "validation.inputs:_warn_of_range",
         "value * std + mean\n", "value\n", "validation/test_silent_inputs.py"),
    _bug("one_shared_row_is_told_as_a_mistake", "validation.inputs:check_held_out",
         "shared > SHARED * of", "shared > 0", "validation/test_silent_inputs.py"),
    _bug("one_shared_network_is_the_whole_ensemble", "auditing.klom:check_ensembles",
         "all(row.tobytes() in theirs", "any(row.tobytes() in theirs",
         "validation/test_silent_inputs.py"),
    # Right-hand sides of any size
    _bug("cg_squares_what_the_preconditioner_shrank", "kernels.krylov:cg",
         "size = unit(z)", "size = jnp.ones((), dtype)", "kernels/test_solver_scales.py",
         "kernels/test_preconditioners.py"),
    _bug("cgnr_squares_the_scale_of_the_operator", "kernels.krylov:cgnr",
         "scale = unit(s) / unit(progress.r)", "scale = jnp.ones((), dtype)",
         "kernels/test_solver_scales.py"),
    _bug("cgnr_reports_its_curvature_in_its_own_units", "kernels.krylov:cgnr",
         "state.scale * rayleigh_quotient(state.p, q)", "rayleigh_quotient(state.p, q)",
         "kernels/test_solver_scales.py", "kernels/test_solvers.py"),
    _bug("the_scale_is_that_of_the_first_leaf", "kernels._trees:unit",
         "leaves = jax.tree.leaves(a)", "leaves = jax.tree.leaves(a)[:1]",
         "kernels/test_solver_scales.py"),
    _bug("a_scale_is_no_power_of_two", "kernels._trees:unit",
         "jnp.where(largest > 0, power, 1)", "jnp.where(largest > 0, largest, 1)",
         "kernels/test_solver_scales.py"),
    _bug("an_overflowed_solution_counts_as_converged", "kernels.solvers:on_unit_scale",
         "info.converged & ~lost & ~ignored", "info.converged & ~ignored",
         "kernels/test_solver_scales.py"),
    _bug("subnormal_numbers_are_solved_for_as_zero", "kernels.solvers:on_unit_scale",
         "ignored = _has_bits(b) & (norm(b) == 0)", "ignored = jnp.asarray(False)",
         "kernels/test_solver_scales.py"),
    _bug("a_vanishing_operator_has_no_nystrom", "kernels.preconditioners:nystrom",
         "nudge = jnp.maximum(nudge, limits.tiny / limits.eps)", "nudge = 1.0 * nudge",
         "kernels/test_preconditioners.py"),
    _bug("neumann_stops_at_the_wrong_right_hand_side", "kernels.stationary:neumann",
         "(MARGIN * tol) ** 2 * rr0", "MARGIN * tol * rr0", "kernels/test_solvers.py",
         "kernels/test_solver_scales.py"),
    _bug("lissa_adds_its_runs_up", "kernels.stationary:lissa",
         "jnp.mean(leaf, axis=0)", "jnp.sum(leaf, axis=0)", "kernels/test_solvers.py",
         "kernels/test_solver_scales.py"),
    _bug("lanczos_vectors_of_tiny_operators_vanish", "kernels.krylov:minres",
         "beta = _trees.norm(y)", "beta = jnp.sqrt(dot(y, y))", "kernels/test_solver_scales.py"),
    # Identity of runs
    _bug("constants_of_a_computation_do_not_count", "training.identity:_Printer.closed",
         "return [*constants, *self.open", "return [*self.open", "training/test_identity.py"),
    _bug("literals_of_a_computation_do_not_count", "training.identity:_Printer._atom",
         "return _array_digest(atom.val)", 'return "literal"', "training/test_identity.py"),
    _bug("a_network_is_its_forward_pass", "training.identity:trace_gradient",
         "graded = jax.value_and_grad(objective, has_aux=True)", "graded = objective",
         "training/test_identity.py"),
    _bug("epochs_of_another_recipe_are_the_run_s", "training.identity:_Reader._is_the_run_s",
         "dataclasses.replace(recipe, epochs=run.epochs) == run", "True",
         "training/test_identity.py"),
    _bug("a_user_s_objective_is_its_fields", "training.identity:identify",
         "reader.opaque or not _is_ours(type(objective))", "reader.opaque",
         "training/test_identity.py"),
    _bug("keys_are_their_words", "training.identity:_array_digest",
         'f"{jax.random.key_impl(value)} {sha256_of_array(words)}"', "sha256_of_array(words)",
         "training/test_identity.py"),
    _bug("a_created_network_is_its_name_whatever_became_of_it", "training.identity:_network",
         "if made == model:", "if True:", "training/test_identity.py"),
    # Modes of modules
    _bug("evaluation_may_draw", "models.modes:_check_still",
         "traced.draws or traced.moves", "traced.moves", "models/test_modes.py"),
    _bug("one_switch_may_stay_unnamed", "models.modes:_check_complete",
         "other.draws > traced.draws or", "False or", "models/test_modes.py"),
    _bug("a_loop_hides_dropout", "models.modes:_dependencies",
         "together = set().union(*given)", "together = given[-1]", "models/test_modes.py"),
    _bug("keyword_arguments_are_given_to_all", "models.modes:_answered",
         "on is not None and on != off", "on is not None", "models/test_modes.py"),
    _bug("evaluation_is_called_as_training", "models.modes:arguments",
         "value if train else not value", "value", "models/test_modes.py"),
    # One record, and small batches
    _bug("batches_of_eight_are_too_small", "unlearning._sgd:with_running_statistics",
         "< LEAST_FOR_STATISTICS", "<= LEAST_FOR_STATISTICS", "unlearning/test_forget_passes.py"),
    _bug("the_last_forget_batch_repeats_its_own", "host.order:whole_rows",
         "following[~held[following]][:missing]", "order[-missing:]",
         "unlearning/test_forget_passes.py"),
    _bug("the_record_is_learned_with_itself_outside", "auditing._one_member:_stands_out",
         "rest = np.delete(x, row, axis=0)", "rest = x", "auditing/test_one_record.py"),
    _bug("one_record_is_surely_above", "auditing._one_member:attack_one",
         "bounded_interval(float(above), 1)", "bounded_interval(float(above), 1000)",
         "auditing/test_one_record.py"),
    _bug("an_adapted_batch_is_not_told", "unlearning._sgd:SgdSettings.fitted",
         'adapted["batch_size"] = dataset.size', "pass", "unlearning/test_forget_passes.py"),
    _bug("a_small_retain_batch_freezes_the_forget_pass",
         "unlearning._passes:TwoSetSettings.fitted_pair",
         "frozen_state=self.recipe().frozen_state", "frozen_state=retain.frozen_state",
         "unlearning/test_forget_passes.py"),
    _bug("one_record_is_ranked_against_one", "auditing.lira:_choose",
         "max(size, FEWEST_OTHERS)", "size", "auditing/test_one_record.py",
         "auditing/test_lira.py"),
    _bug("small_batches_have_statistics", "unlearning._sgd:with_running_statistics",
         "dataclasses.replace(recipe, frozen_state=True)", "recipe",
         "unlearning/test_forget_passes.py"),
    _bug("an_adapted_forget_batch_is_not_told", "unlearning._passes:TwoSetSettings.fitted_pair",
         "wanted < retain.batch_size else {}", "False else {}", "unlearning/test_forget_passes.py"),
    _bug("the_last_forget_batch_is_left_out", "unlearning._passes:steps_of_whole_pass",
         "-(-size // batch_size)", "size // batch_size", "unlearning/test_forget_passes.py"),
    _bug("a_candidate_is_in_no_shadow", "auditing.lira:_choose",
         "others -= (size + others) % 2", "pass", "auditing/test_one_record.py",
         "auditing/test_lira.py"),
    # Settings of the original
    _bug("methods_augment_as_they_like", "training.inheritance:inherited",
         "return Recipe(**{**kept, **own})", "return Recipe(**own)",
         "training/test_inheritance.py"),
    _bug("a_short_run_warms_up_as_long", "training.inheritance:inherited",
         "original.warmup_epochs * ratio", "original.warmup_epochs",
         "training/test_inheritance.py"),
    _bug("a_milestone_before_the_first_epoch", "training.inheritance:inherited",
         "max(1, round(m * ratio))", "round(m * ratio)", "training/test_inheritance.py"),
    _bug("what_a_method_was_told_is_told_over", "training.inheritance:train_like",
         "for name in names if getattr(method, name) is None", "for name in names",
         "training/test_inheritance.py"),
    _bug("shadows_unlearn_by_a_method_untold", "auditing.shadows:ask_shadows",
         "prepared = train_like(unlearner, recipe)", "prepared = unlearner",
         "auditing/test_shadows.py", "auditing/test_lira.py"),
    # Scores that were published
    _bug("efficacy_counts_members", "auditing.optml:OptmlScores.score",
         "np.sum(called == 0)", "np.sum(called == 1)", "auditing/test_published_scores.py"),
    _bug("ua_is_an_accuracy", "auditing.optml:OptmlScores.score",
         '1 - right["forget"]', 'right["forget"]', "auditing/test_published_scores.py"),
    _bug("the_machine_learns_all_of_retain", "auditing.optml:OptmlScores._attack",
         "retain = retain[: len(test)]", "retain = retain[: self.limit]",
         "auditing/test_published_scores.py"),
    _bug("the_kernel_is_scaled_by_the_variance", "auditing.optml:OptmlScores._attack",
         'gamma="auto"', 'gamma="scale"', "auditing/test_published_scores.py"),
    _bug("points_are_lost_half_a_bin_early", "auditing.challenge:challenge_forgetting_quality",
         "np.floor(epsilons / BIN_WIDTH)", "np.round(epsilons / BIN_WIDTH)",
         "auditing/test_published_scores.py"),
    _bug("the_unlearned_are_always_positive", "auditing.challenge:_epsilon",
         "np.median(retrained) > np.median(unlearned)", "False",
         "auditing/test_published_scores.py"),
    _bug("one_direction_of_epsilon_is_left_out", "auditing.challenge:_epsilon",
         "(1 - DELTA - fpr) / fnr, ", "", "auditing/test_published_scores.py"),
    _bug("our_quality_loses_half_at_zero", "auditing.forgetting_quality:forgetting_quality",
         "2.0 ** (1 - index)", "2.0**-index", "auditing/test_ensembles.py"),
    _bug("the_reference_form_of_lira_is_about_means", "auditing.lira:_reference_fit",
         "np.median(taken, axis=0)", "np.mean(taken, axis=0)", "auditing/test_published_scores.py"),
    _bug("the_reference_form_of_lira_takes_all_shadows", "auditing.lira:_reference_fit",
         "_counts(chosen, side).min()", "_counts(chosen, side).max()",
         "auditing/test_published_scores.py"),
    _bug("smoothed_shares_exceed_one", "auditing.klom:klom",
         "(shares / shares.sum(axis=0) for shares in (p, q))", "(p, q)",
         "auditing/test_ensembles.py"),
    _bug("the_optml_gap_keeps_its_sign", "auditing.optml:optml_gap",
         "abs(metrics[name] - reference[name])", "(metrics[name] - reference[name])",
         "auditing/test_published_scores.py"),
    _bug("points_beyond_what_networks_can_show",
         "auditing.challenge:challenge_forgetting_quality",
         "np.where(epsilons < limit, points, 0.0)", "points", "auditing/test_published_scores.py"),
    _bug("two_thresholds_call_the_wider_positive", "auditing.challenge:_double",
         "np.ptp(positive) >= np.ptp(negative)", "np.ptp(positive) < np.ptp(negative)",
         "auditing/test_published_scores.py"),
    _bug("one_direction_of_our_epsilon_is_left_out", "auditing.forgetting_quality:_epsilon",
         ", (1 - delta - fnr) / fpr", "", "auditing/test_ensembles.py"),
    _bug("the_challenge_s_score_adds_accuracies", "auditing.forgetting_quality:challenge_score",
         "(retain[0] / retain[1])", "retain[0]", "auditing/test_ensembles.py"),
    _bug("the_reference_form_of_lira_has_two_variances", "auditing.lira:lira_scores",
         "            std = std_in\n", "            pass\n", "auditing/test_published_scores.py"),
    _bug("offline_sees_both_sides", "auditing.lira:lira_scores",
         "scores = (asked - mean) / std", "scores = np.abs(asked - mean) / std",
         "auditing/test_published_scores.py", "auditing/test_lira.py"),
    _bug("klom_is_of_retrained_to_unlearned", "auditing.klom:klom",
         "np.sum(p * np.log(p / q), axis=0)", "np.sum(q * np.log(q / p), axis=0)",
         "auditing/test_ensembles.py"),
    # Classes forgotten as a whole
    _bug("a_forgotten_class_keeps_its_mean", "unlearning.fisher_forgetting:add_fisher_noise",
         "leaf, forgotten, 0.0)", "leaf, (), 0.0)", "unlearning/test_fisher_forgetting.py"),
    _bug("any_class_with_forget_examples_is_forgotten",
         "unlearning.fisher_forgetting:forgotten_classes",
         "np.setdiff1d(np.asarray(task.forget.y), np.asarray(task.retain.y))",
         "np.unique(np.asarray(task.forget.y))", "unlearning/test_fisher_forgetting.py"),
    _bug("a_forgotten_class_has_fisher_noise", "unlearning.fisher_forgetting:_variance",
         "variance, forgotten, FORGOTTEN", "variance, (), FORGOTTEN",
         "unlearning/test_fisher_forgetting.py"),
    _bug("noise_is_averaged_over_outputs", "unlearning.fisher_forgetting:_variance",
         "variance.mean(axis=-2", "variance.mean(axis=-1", "unlearning/test_fisher_forgetting.py"),
    # Scrub
    _bug("scrub_s_milestones_leave_out_the_forget_pass", "unlearning.scrub:Scrub._recipe_in_steps",
         " + min(m, self.max_epochs) * forget_steps", "", "unlearning/test_scrub.py"),
    _bug("scrub_defies_one_epoch_too_many", "unlearning.scrub:Scrub.__call__",
         "epoch < self.max_epochs", "epoch <= self.max_epochs", "unlearning/test_scrub.py"),
    _bug("the_teacher_sees_plain_images", "unlearning.scrub:_Distillation.__call__",
         "self.model.apply(context.original, x)", "self.model.apply(context.original, batch.x)",
         "training/test_inheritance.py"),
    # Recipes
    _bug("the_line_ends_late", "training.recipe:learning_rate_schedule",
         "optax.linear_schedule(peak, 0.0, max(total - warmup, 1))",
         "optax.linear_schedule(peak, 0.0, total)", "training/test_recipe.py"),
    _bug("muon_steps_biases_at_the_kernels_rate", "training.recipe:_muon",
         "numbers.rate_ratio * schedule(step)", "schedule(step)",
         "training/test_recipe.py"),
    _bug("muon_forgets_nesterov_for_the_rest", "training.recipe:_muon",
         "nesterov=True", "nesterov=False", "training/test_recipe.py"),
    _bug("muon_orthogonalises_matrices_too", "training.recipe:_muon",
         "w.ndim == 4", "w.ndim >= 2", "training/test_recipe.py"),
    _bug("muon_orthogonalises_over_the_wrong_axes", "training.recipe:_muon",
         "reduction_axis=(0, 1, 2), output_axis=3", "reduction_axis=(0, 1, 3), output_axis=2",
         "training/test_recipe.py"),
    # Convolutions
    _bug("images_left_over_do_not_count", "models.convolution:_correlate",
         "return total + _correlate_few(x[whole:]", "return total + 0 * _correlate_few(x[whole:]",
         "models/test_convolution.py"),
    _bug("a_batch_is_unfolded_inside_out", "models.convolution:_batch",
         "= [size, -1]", "= [-1, size]", "models/test_convolution.py"),
    _bug("the_kernel_is_not_mirrored", "models.convolution:_transpose",
         "kernel[::-1, :, ::-1]", "kernel", "models/test_convolution.py"),
    _bug("two_batches_are_multiplied_out", "models.convolution:_both_batched",
         "if primitive is _correlate_p:", "if primitive is not _correlate_p:",
         "models/test_convolution.py"),
    _bug("a_batch_is_put_after_what_it_joins", "models.convolution:_batch",
         "jnp.moveaxis(arrays[which], axis, fold.into)",
         "jnp.moveaxis(arrays[which], axis, fold.into + 1)", "models/test_convolution.py"),
    # The speed run
    _bug("the_faintest_patterns_come_first", "models.speedrun:whitening_filters",
         "np.argsort(-variances", "np.argsort(variances", "models/test_speedrun.py"),
    _bug("filters_have_no_negatives", "models.speedrun:whitening_filters",
         "[scaled, -scaled]", "[scaled, scaled]", "models/test_speedrun.py"),
    _bug("patterns_keep_their_variance", "models.speedrun:whitening_filters",
         "np.sqrt(variances[chosen] + _NOISE)", "np.sqrt(variances[chosen] * 0 + 1)",
         "models/test_speedrun.py"),
    _bug("the_head_is_over_ten", "models.speedrun:Speedrun.__call__",
         "return logits / 9", "return logits / 10", "models/test_speedrun.py"),
    # Shares of a batch
    _bug("shares_augment_alike", "training.step:take_step",
         "jax.random.fold_in(objective_key, jax.lax.axis_index(shares))", "objective_key",
         "training/test_fit.py::test_runs_are_shared_out_over_several_devices"),
    _bug("shares_are_not_averaged", "training.step:take_step",
         "jax.lax.pmean((gradient, new_state, metrics), shares)",
         "(gradient, new_state, metrics)", "training/test_fit.py::"
         "test_runs_are_shared_out_over_several_devices"),
    _bug("shares_add_their_own_noise", "training.step:take_step",
         "        objective_key = jax.random.fold_in(objective_key, jax.lax.axis_index(shares))",
         "        objective_key, noise_key = (jax.random.fold_in(k, jax.lax.axis_index(shares)) for"
         " k in (objective_key, noise_key))", "training/test_fit.py::"
         "test_runs_are_shared_out_over_several_devices"),
    _bug("each_device_takes_the_whole_batch", "training.unit:_take_steps",
         "PartitionSpec(None, shares)", "PartitionSpec()", "training/test_fit.py::"
         "test_runs_are_shared_out_over_several_devices"),
    # The unit, and what the host does for it
    _bug("steps_behind_the_last_are_taken", "training.unit:_loop",
         "fori_loop(0, count, ", "fori_loop(0, jnp.minimum(count + 1, room), ",
         "training/test_unit.py"),
    _bug("a_long_run_repeats_its_first_steps", "training.unit:_calls",
         "slice(start, start + count)", "slice(0, count)",
         "training/test_unit.py::test_more_steps_than_a_call_takes_are_the_same_run"),
    _bug("metrics_of_room_are_told", "training.unit:_call",
         "(*cut, slice(count))", "(*cut, slice(None))", "training/test_unit.py"),
    _bug("lanes_have_one_rate", "training.unit:_unit_in_lanes",
         "batches, rates, count", "batches, jnp.broadcast_to(rates[0], rates.shape), count",
         "training/test_unit.py::test_lanes_are_each_the_run_alone_up_to_rounding"),
    _bug("momentum_is_of_the_form", "training.recipe:split_recipe",
         "momentum=(recipe.momentum or None)", "momentum=(0.5 if recipe.momentum else None)",
         "training/test_unit.py"),
    _bug("all_recipes_have_a_decay", "training.recipe:split_recipe",
         "weight_decay=1.0 if recipe.weight_decay else 0.0", "weight_decay=1.0",
         "training/test_unit.py"),
    _bug("smoothing_is_left_out_of_the_form", "training.recipe:split_recipe",
         "        step_factor=1.0,\n", "        step_factor=1.0,\n        label_smoothing=0.0,\n",
         "training/test_unit.py"),
    _bug("rates_begin_a_step_late", "training.recipe:rate_table",
         "np.arange(room, dtype=np.int32)", "np.arange(1, room + 1, dtype=np.int32)",
         "training/test_unit.py::test_rates_of_the_host_are_the_schedule_but_for_rounding"),
    _bug("numbers_come_back_in_another_order", "training.numbers:join_numbers",
         "iter(numbers)", "reversed(numbers)", "training/test_numbers.py"),
    _bug("a_missing_term_takes_a_number", "training.numbers:join_numbers",
         "is_number and value != 0", "is_number", "training/test_numbers.py"),
    _bug("numbers_stay_in_the_form", "training.numbers:split_numbers",
         "            return 1.0\n", "            return value\n", "training/test_numbers.py"),
    _bug("a_hash_turns_too_far", "host.random:_hash",
         "b << np.uint32(turn)", "b << np.uint32(turn + 1)", "host/test_random.py"),
    _bug("one_hash_forgets_to_wrap", "host.random:_hash_one",
         "b = (b + keys[(group + 2) % 3] + group + 1) & low",
         "b = (b + keys[(group + 2) % 3] + group + 1)", "host/test_random.py"),
    _bug("large_sets_are_sorted_once", "host.random:HostKey.permutation",
         "math.ceil(3 *", "math.floor(1 *", "host/test_random.py::test_permutations"),
    _bug("integers_lean_to_one_side", "host.random:HostKey.randint",
         "factor * factor % span", "factor % span", "host/test_random.py::test_integers"),
    _bug("any_generator_is_the_default_one", "host.random:host_key",
         'not default or not jax.config.values["jax_threefry_partitionable"]', "False",
         "host/test_random.py"),
    _bug("a_cycle_begins_anew_in_each_epoch", "host.order:cycled_rows",
         "begin = first - passes.start * per_pass", "begin = 0", "host/test_order.py"),
    _bug("room_is_copied_from_the_first_rows", "host.reserve:_extended",
         "np.zeros((room, *array.shape[1:]), array.dtype)",
         "np.resize(np.asarray(array), (room, *array.shape[1:]))", "host/test_reserve.py"),
    _bug("every_size_has_its_own_room", "host.reserve:room_for",
         "        return doubled\n", "        return n\n", "host/test_reserve.py"),
    _bug("predictions_of_room_are_told", "training.predict:predict",
         "on_host(logits)[: x.shape[0]]", "on_host(logits)", "host/test_reserve.py",
         "training/test_predict.py"),
    _bug("the_first_rows_are_replaced", "host.arrays:replace_rows",
         "replaced[rows] = np.asarray(values)", "replaced[: len(rows)] = np.asarray(values)",
         "host/test_arrays.py"),
    _bug("runs_in_turn_share_a_state", "training.fit:_Runs.go_on",
         "self._states[seed], metrics = take_steps(\n                state,",
         "self._states[seed], metrics = take_steps(\n                self._states[0],",
         "training/test_fit.py::test_many_runs_in_turn_are_the_single_runs_bit_by_bit"),
    _bug("one_device_trains_all", "training.fit:fit_many",
         "on = places if len(places) > 1 else [None]", "on = [None] * len(places)",
         "training/test_fit.py::test_runs_are_shared_out_over_several_devices"),
    _bug("a_price_leaves_out_the_mask", "unlearning.salun:SalUn.example_gradients",
         " + _mask_gradients(task)", "", "studies/test_budget.py"),
    _bug("a_price_counts_every_epoch_s_ascent", "unlearning.scrub:Scrub._descent_gradients",
         "epochs=min(self.max_epochs, self.epochs)", "epochs=self.epochs",
         "studies/test_budget.py"),
    # Hostile provers
    _bug("pixels_a_step_beyond_are_within", "forging.detectors:domain_violations",
         "255 + slack", "257 + slack", "forging/test_detectors.py"),
    _bug("a_rate_is_slow_beside_the_recipe_s_alone", "forging.findings:find_moves",
         "max(claim.recipe.learning_rate, rates.max())", "claim.recipe.learning_rate",
         "forging/test_attacks.py::test_a_step_is_slow_beside_the_largest_rate_of_the_run"),
    _bug("use_is_counted_over_the_whole_log", "forging.detectors:frequency_of_use",
         "(epoch > 1)", "(counts > 1)",
         "forging/test_attacks.py::test_one_exchanged_example_is_seen"),
    _bug("a_class_of_the_data_may_be_left_out", "forging.findings:find_batches",
         "used = np.unique(y[usage.counts > 0])", "used = np.unique(y)",
         "forging/test_attacks.py::test_a_class_that_no_step_used_is_named"),
    _bug("the_named_start_is_not_compared", "forging.findings:find_start",
         "if digest != claim.start.sha256:", "if False:",
         "forging/test_attacks.py::test_a_first_checkpoint_is_the_start_that_is_named"),
    _bug("still_segments_are_not_idle", "forging.findings:find_moves",
         "slow | np.repeat(still, lengths)", "slow",
         "forging/test_attacks.py::test_stolen_weights_that_stand_still_are_no_training"),
    _bug("memory_counts_at_the_first_rate", "forging.limits:caps_of",
         "np.max(claim.rates, initial=0.0)", "claim.rates[0]",
         "forging/test_attacks.py::test_memory_is_limited_by_what_it_moves_at_the_largest_rate"),
    _bug("memory_is_free_beside_tolerance_0", "forging.limits:as_tolerance",
         "math.inf if value > 0 else 0.0", "math.inf",
         "forging/test_attacks.py::test_memory_and_statistics_have_limits_of_their_own"),
    _bug("other_random_numbers_are_not_told", "forging.opening:_check_generator",
         "if there != here:", "if False:",
         "forging/test_attacks.py::test_keys_that_draw_other_numbers_here_are_told"),
    _bug("what_is_asked_for_is_granted", "forging.verify:_limits",
         "np.minimum(np.array(largest), np.array(accepted))",
         "np.array([accepted] * len(moves))",
         "forging/test_attacks.py::test_no_tolerance_is_as_wide_as_other_weights"),
    _bug("top_segments_count_as_drawn", "forging.verify:_choose",
         "return sorted(chosen), drawn", "return sorted(chosen), len(chosen)",
         "forging/test_attacks.py::test_the_furthest_segments_alone_prove_nothing"),
    _bug("chaos_widens_limits", "forging.calibrate:_refuse_chaos",
         "np.any(shares > 1)", "np.all(shares > 1)",
         "forging/test_attacks.py::test_chaos_widens_no_tolerance"),
    _bug("dropout_is_called_reordering", "forging.calibrate:_draws_by_position",
         "return not np.array_equal(one, other)", "return False",
         "forging/test_calibrate.py::test_dropout_leaves_the_batch_order_out"),
    _bug("a_bent_way_proves", "forging.report:VerificationReport",
         "if self.slack >= 1:", "if self.slack > 10:",
         "forging/test_attacks.py::test_limits_that_bend_the_way_to_anywhere_prove_nothing"),
    _bug("two_classes_are_one_hot", "forging.detectors:domain_violations",
         "(np.abs(ordered[:, :-1]).max(1) <= slack) & ", "", "forging/test_detectors.py"),
    _bug("duplicates_are_told_in_network_units", "forging.detectors:near_duplicates",
         "_pixels(batch), _pixels(accused)", "_rows(batch), _rows(accused)",
         "forging/test_detectors.py"),
    _bug("one_redrawn_example_is_no_redrawn_step", "forging.detectors:redrawn_steps",
         ".any(axis=1)", ".all(axis=1)",
         "forging/test_attacks.py::test_one_exchanged_example_is_seen"),
    _bug("a_start_of_rounding_is_right_at_tolerance_0", "forging.findings:find_start",
         "START_ROUNDING * size if tolerance.weights > 0 else 0.0", "START_ROUNDING * size",
         "forging/test_attacks.py::test_a_fresh_start_holds_to_the_last_bit"),
    _bug("constant_arrays_look_initialised", "forging.findings:unlikely_initialisation",
         "bool((array != drawn[0]).any())", "False",
         "forging/test_attacks.py::test_trained_weights_do_not_look_freshly_initialised"),
    _bug("squared_limits_have_the_plain_ratio", "forging.limits:Caps.of",
         "self.ratio**p", "self.ratio",
         "forging/test_attacks.py::test_memory_is_limited_by_what_it_moves_at_the_largest_rate"),
    _bug("bfloat16_counts_as_full_precision", "forging.limits:largest_ratio",
         'products and claim.recipe.compute_dtype == "float32"', "products",
         "forging/test_attacks.py::test_less_precise_computations_say_how_much_they_allow"),
    _bug("a_log_may_begin_with_a_memory", "forging.opening:open_log",
         "if not same_bits(fresh.opt_state, start.opt_state):", "if False:",
         "forging/test_hostile.py::test_a_log_that_begins_with_a_memory_is_refused"),
    _bug("equal_examples_are_all_the_first", "forging.opening:match_rows",
         "taken[digest] = index + 1", "taken[digest] = index",
         "forging/test_verify.py::test_equal_examples_are_matched_one_by_one"),
    _bug("top_segments_are_of_the_whole_log", "forging.verify:_choose",
         "(end - 1) // log.claim.steps_per_epoch for end", "0 for end",
         "forging/test_verify.py::test_chosen_segments",
         "forging/test_attacks.py::test_the_furthest_segments_alone_prove_nothing"),
    _bug("the_promised_head_is_ignored", "forging.verify:verify",
         "if head is not None and head != log.head:", "if False:",
         "forging/test_verify.py::test_the_promised_head_is_asked_for"),
    _bug("any_precision_is_benign", "forging.calibrate:_changed_runs",
         "digits >= promised, runs", "True, runs",
         "forging/test_calibrate.py::test_a_log_at_highest_precision_does_not_excuse_less"),
    _bug("an_incomplete_log_is_valid", "forging.report:VerificationReport",
         "if not self.complete:\n            return", "if False:\n            return",
         "forging/test_attacks.py::test_seven_of_thirty_four_thousand_steps_are_incomplete"),
    # Escaping
    _bug("upper_and_lower_case_share_a_file", "reporting.escaping:slug",
         'name.encode("utf-8", "surrogatepass")', 'name.lower().encode("utf-8", "surrogatepass")',
         "reporting/test_escaping.py"),
    _bug("a_row_that_begins_with_a_bracket", "reporting.escaping:latex_cell",
         'line[:1] in ("[", "*")', 'line[:1] in ("*",)', "reporting/test_escaping.py"),
    _bug("labels_of_an_underscore_are_hidden", "reporting.escaping:figure_label",
         'if label.startswith("_") else label', "if False else label",
         "reporting/test_escaping.py"),
    _bug("labels_are_formulas", "reporting.escaping:figure_label",
         'label = label.replace("$", r"\\$")', "pass", "reporting/test_escaping.py"),
    _bug("marks_that_turn_the_writing_are_kept", "reporting.escaping:_printable",
         '("Cc", "Cf", "Cs")', '("Cc", "Cs")', "reporting/test_escaping.py"),
    _bug("a_line_separator_ends_a_row", "reporting.escaping:one_line",
         "\\u2028\\u2029]", "]", "reporting/test_escaping.py"),
    # Memory
    _bug("donated_arguments_count_twice", "costs:program_bytes",
         "taken - analysis.alias_size_in_bytes", "taken", "base/test_costs.py"),
    _bug("a_batch_that_does_not_fit", "costs:largest_batch",
         "return above if at_above <= limit else least", "return above", "base/test_costs.py"),
    _bug("the_line_goes_through_zero", "costs:largest_batch",
         "(limit - at_least) / (at_above - at_least)", "limit / at_above", "base/test_costs.py"),
    # Data
    _bug("validation_is_the_test_set", "data.splits:Split.task",
         'self.validation_from == "train" else test)', 'self.validation_from == "test" else test)',
         "data/test_splits.py"),
    # The command line
    _bug("errors_steer_the_terminal", "cli:run",
         "escaped(message, 2000)", "message[:2000]", "cli/test_cli.py"),
    _bug("outputs_are_checked_by_their_folder", "cli.verification:_check_outputs",
         "path.is_dir() or not", "not", "cli/test_cli.py"),
    _bug("a_failure_says_invalid", "cli:run",
         "return _NOT_DONE", "return 1", "cli/test_cli.py"),
    _bug("rows_one_past_the_end_are_taken", "cli.verification:_check_rows",
         "rows.max() >= dataset.size", "rows.max() > dataset.size", "cli/test_cli.py"),
    _bug("a_seed_may_be_any_number", "cli.verification:LogArguments.key",
         "if not 0 <= seed < 2**32:", "if seed < 0:", "cli/test_cli.py"),
    # Games side by side
    _bug("lanes_share_a_start", "poisoning.total_gradient.lanes:attack_in_lanes",
         "attack.begin(key, model, network, clean)", "attack.begin(keys[0], model, network, clean)",
         "poisoning/test_total_gradient.py::test_lanes_are_each_the_attack_alone"),
    _bug("lanes_play_one_epoch_over_and_over", "poisoning.total_gradient.lanes:attack_in_lanes",
         "jnp.int32(epoch)", "jnp.int32(0)",
         "poisoning/test_total_gradient.py::test_lanes_are_each_the_attack_alone"),
    _bug("lanes_attack_one_network", "poisoning.total_gradient.lanes:attack_in_lanes",
         "for key, network in zip(keys, networks, strict=True)", "for key, network in "
         "zip(keys, networks[:1] * lanes, strict=True)",
         "poisoning/test_total_gradient.py::test_each_lane_has_the_running_statistics_of_its_network"),
    _bug("a_lane_costs_as_much_as_all", "poisoning.total_gradient.lanes:attack_in_lanes",
         "watch.seconds / lanes, watch.compile_seconds / lanes",
         "watch.seconds, watch.compile_seconds",
         "poisoning/test_total_gradient.py::test_lanes_are_each_the_attack_alone"),
    # The store of a study's stages
    _bug("inputs_are_left_out_of_a_stage_s_key", "studies.store.keys:stage_key",
         ', "inputs": inputs', "",
         "studies/test_store_keys.py::test_kind_settings_and_inputs_count"),
    _bug("a_stage_s_key_knows_no_shapes", "studies.store.keys:_describe_array",
         "list(array.shape)", "[]", "studies/test_store_keys.py::test_arrays_count_bit_for_bit"),
    _bug("networks_are_told_apart_without_their_beginning", "studies.store.keys:_describe_network",
         '"init": begun, ', "",
         "studies/test_store_keys.py::test_networks_count_by_what_they_compute"),
    _bug("a_user_s_mended_method_serves_old_results", "studies.store.keys:_describe_named",
         "*(_source_digest(name, where) for name in foreign)", "*()",
         "studies/test_store_keys.py::test_the_source_of_a_user_s_module_counts"),
    _bug("a_program_s_digest_knows_no_file_names", "studies.store.environment:source_digest",
         "{path.relative_to(package).as_posix()}", "file",
         "studies/test_store_keys.py::test_the_source_digest_covers_names_and_every_byte"),
    _bug("the_width_of_lanes_does_not_count", "studies.store.environment:Environment.current",
         '"lane_width": str(lane_width)', '"lane_width": ""',
         "studies/test_store_keys.py::test_the_environment_holds_what_decides_the_bits"),
    _bug("what_is_not_a_number_comes_back_as_nothing", "studies.store.packing:_Packer.pack",
         '{"$float": str(value)}', "None",
         "studies/test_store.py::test_what_was_packed_is_unpacked_bit_for_bit"),
    _bug("weak_types_depend_on_whether_a_stage_was_there", "studies.store.folder:Store.obtain",
         "as_read(compute())", "compute()",
         "studies/test_store.py::test_weak_types_go_so_that_read_and_computed_stages_are_alike"),
    _bug("arrays_are_read_without_their_digest", "studies.store.stages:_read",
         'if hashlib.sha256(content).hexdigest() != said["sha256"]:', "if False:",
         "studies/test_store.py::test_a_damaged_stage_is_said_and_computed_again"),
    _bug("a_stage_is_read_without_its_digest", "studies.store.stages:_read",
         'document.pop("sha256") != _digest(document)', 'not document.pop("sha256")',
         "studies/test_store.py::test_a_damaged_stage_is_said_and_computed_again"),
    _bug("a_stage_in_another_s_place_is_read", "studies.store.stages:_read",
         " or written.name != folder.name", "",
         "studies/test_store.py::test_a_damaged_stage_is_said_and_computed_again"),
    _bug("reuse_across_versions_is_not_said", "studies.store.stages:_read",
         "dict(environment.facts) if other else None", "None",
         "studies/test_store.py::test_another_environment_is_another_stage"),
    _bug("a_stage_is_written_where_it_is_read", "studies.store.folder:Store._write",
         "write_stage(temporary, document, content)",
         "place.mkdir(parents=True); write_stage(place, document, content); return",
         "studies/test_store_faults.py::test_a_process_that_ends_at_any_call_leaves_no_stage_or_a_whole_one"),
    _bug("a_short_write_is_taken_for_a_whole_one", "studies.store.stages:_write_durably",
         "rest = rest[os.write(descriptor, rest) :]", "os.write(descriptor, rest); break",
         "studies/test_store_faults.py::test_a_disk_that_takes_little_at_once_gets_all"),
    _bug("a_stage_has_its_name_before_it_is_on_the_disk", "studies.store.stages:_write_durably",
         "os.fsync(descriptor)", "pass",
         "studies/test_store_faults.py::test_all_is_on_the_disk_before_it_has_its_name"),
    _bug("who_waited_computes_again", "studies.store.folder:Store.obtain",
         "(found := self.get(key)) is not None", "None is not None",
         "studies/test_store_faults.py::test_of_several_processes_one_computes"),
    _bug("a_removed_claim_is_held", "studies.store.claims:_try_lock",
         "lock(descriptor) and _is_still(path, descriptor)", "lock(descriptor)",
         "studies/test_store_faults.py::test_a_claim_whose_file_was_removed_is_none"),
    _bug("folders_in_use_are_swept", "studies.store.folder:Store._sweep",
         " and _is_free(path)", "",
         "studies/test_store_faults.py::test_leftovers_are_removed_but_not_those_in_use"),
    _bug("the_newest_stages_go_first", "studies.store.folder:Store.shrink",
         "key=_written)", "key=_written, reverse=True)",
         "studies/test_store.py::test_shrinking_removes_the_oldest_first"),
)  # fmt: skip


def locate(symbol: str) -> tuple[Path, str]:
    """Returns the file, relative to the tree, and the qualified name of where a symbol is defined.

    A symbol that moved to another file is found where the named module imports it from there.
    """
    module_name, _, qualified = symbol.partition(":")
    found = module = importlib.import_module(f"unlearnkit.{module_name}")
    for part in qualified.split("."):
        found = inspect.getattr_static(found, part)
    found = inspect.unwrap(getattr(found, "__func__", found))
    source = sys.modules[getattr(found, "__module__", module.__name__)]
    return Path(source.__file__).resolve().relative_to(ROOT), found.__qualname__


def plant(text: str, qualified: str, bug: Bug) -> str:
    """Returns the text of a file with the bug in it.

    Raises:
      LookupError: no such symbol in the text, or `old` does not stand in it exactly once.
    """
    nodes: Sequence[ast.AST] = ast.parse(text).body
    node = None
    for part in qualified.split("."):
        matching = [n for n in nodes if getattr(n, "name", None) == part]
        if not matching:
            raise LookupError(f"{bug.name}: no {qualified} in its file")
        node = matching[-1]
        nodes = node.body
    lines = text.splitlines(keepends=True)
    start, end = node.lineno - 1, node.end_lineno
    source = "".join(lines[start:end])
    if (count := source.count(bug.old)) != 1:
        raise LookupError(f"{bug.name}: {bug.old!r} stands {count} times in {bug.symbol}, not once")
    return "".join([*lines[:start], source.replace(bug.old, bug.new), *lines[end:]])


def run(bug: Bug, tree: Path) -> tuple[str, str]:
    """Returns how the bug's tests end in `tree`, which is left as it was, and what pytest said."""
    path, qualified = locate(bug.symbol)
    file = tree / path
    sound = file.read_text(encoding="utf-8")
    file.write_text(plant(sound, qualified, bug), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", *bug.tests]
    try:
        ended = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return "caught", f"no end after {LIMIT_SECONDS} s"
    finally:
        file.write_text(sound, encoding="utf-8")
    lines = ended.stdout.splitlines()
    told = [line for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-1:]
    return _OUTCOMES.get(ended.returncode, "broken"), " ".join(told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named bugs, or all, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="bugs by name; all where there are none")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args(arguments)
    known = {bug.name: bug for bug in BUGS}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown bugs {unknown}; --list prints the known ones")
    chosen = [known[name] for name in options.names] or list(BUGS)
    if options.list:
        print("\n".join(bug.name for bug in chosen))
        return 0
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from compilation_cache import folder

    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder()  # not one in the copy
    left = []
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*_cache", ".git", "runs"))
        for bug in chosen:
            outcome, told = run(bug, tree)
            print(f"{outcome:8s} {bug.name}: {told[:200]}", flush=True)
            if outcome != "caught":
                left.append(bug.name)
    print(f"{len(chosen) - len(left)} of {len(chosen)} caught", *left)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
