"""Hand-made faults in the formulas and in tree rows; each must be noticed by its tests: ``python -m tests.mutations``."""

import importlib.util
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from backend.decoder import int8

ROOT = Path(__file__).resolve().parent.parent


class Fault(NamedTuple):
    name: str
    old: str
    new: str


FAULTS = [
    Fault("mean over all positions", "count = where.sum() if", "count = torch.tensor(where.numel()) if"),
    Fault("mean ignores the mask", "return torch.where(where, values, torch.zeros_like(values)).sum() / count", "return values.sum() / count"),
    Fault("mean multiplies by the mask, so NaN spreads", "torch.where(where, values, torch.zeros_like(values)).sum() /", "(values * where).sum() /"),
    Fault("mean ignores the total", "if total is None else torch.as_tensor(total)", "if total is None else where.sum()"),
    Fault("mean of nothing", "count.clamp(min=1)", "count"),
    Fault("sum ignores the mask", "return torch.where(where, values, torch.zeros_like(values)).sum(1)", "return values.sum(1)"),
    Fault("softmax over positions", "logp = logits.log_softmax(-1)\n        found", "logp = logits.log_softmax(1)\n        found"),
    Fault("raw logits for log-probabilities", "found = logp.gather", "found = logits.gather"),
    Fault("the gradient forgets the token", ".scatter_add_(-1, tokens.unsqueeze(-1), grad), None, None", ", None, None"),
    Fault("the gradient forgets the others", "logp.exp().mul_(-grad).scatter_add_", "torch.zeros_like(logp).scatter_add_"),
    Fault("negative entropy", "entropy = -logp.exp()", "entropy = logp.exp()"),
    Fault("entropy without weights", "-logp.exp().mul_(logp).sum(-1)", "-logp.sum(-1)"),
    Fault("k1 turned around", "difference = logp - logp_ref\n", "difference = logp_ref - logp\n"),
    Fault("k2 not halved", "0.5 * difference**2, torch", "difference**2, torch"),
    Fault("k3 with the wrong sign", "torch.exp(-bounded) - 1 + bounded", "torch.exp(bounded) - 1 - bounded"),
    Fault("k3 unbounded", "bounded = difference.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)\n    return KLTerms", "bounded = difference\n    return KLTerms"),
    Fault("exact KL weighted by the reference", "(logp.exp() * (logp - logp_ref))", "(logp_ref.exp() * (logp - logp_ref))"),
    Fault("penalty for ended answers", "* (~has_ended)", "* has_ended"),
    Fault("penalty within the clip", "return score.clamp(-clip, clip) - missing_eos_penalty * (~has_ended).to(score.dtype)", "return (score - missing_eos_penalty * (~has_ended).to(score.dtype)).clamp(-clip, clip)"),
    Fault("score clipped above only", "score.clamp(-clip, clip)", "score.clamp(max=clip)"),
    Fault("KL rewarded", "-kl_coef * kl,", "kl_coef * kl,"),
    Fault("KL paid in the padding", "rewards = torch.where(is_response, -kl_coef * kl, torch.zeros_like(logp))", "rewards = -kl_coef * kl"),
    Fault("KL is always k1", "kl = getattr(kl_terms(logp, logp_ref), estimator)", "kl = kl_terms(logp, logp_ref).k1"),
    Fault("KL loss without a mask", "estimator), is_response, total)", "estimator), torch.ones_like(is_response), total)"),
    Fault("KL loss forgets the total", "estimator), is_response, total)", "estimator), is_response)"),
    Fault("KL loss trains the reference", "kl_terms(logp, logp_ref.detach())", "kl_terms(logp, logp_ref)"),
    Fault("KL loss holds the policy's part still", "kl_terms(logp, logp_ref.detach())", "kl_terms(logp.detach(), logp_ref)"),
    Fault("KL loss turned around", "kl_terms(logp, logp_ref.detach())", "kl_terms(logp_ref.detach(), logp)"),
    Fault("KL loss is always k2", "return mean_over(getattr(kl_terms(logp, logp_ref.detach()), estimator)", "return mean_over(kl_terms(logp, logp_ref.detach()).k2"),
    Fault("score one position later", "last = (is_response.sum(1) - 1)", "last = is_response.sum(1).clamp(max=is_response.shape[1] - 1)"),
    Fault("score at the last column", "last = (is_response.sum(1) - 1).clamp(min=0)", "last = torch.full_like(is_response.sum(1), is_response.shape[1] - 1)"),
    Fault("score overwrites the KL", "rewards.scatter_add(1", "rewards.scatter(1"),
    Fault("values in the padding count", "values = torch.where(is_response, values, torch.zeros_like(values))\n    backwards", "backwards"),
    Fault("gamma forgotten on the next value", "rewards[:, t] + gamma * next_value", "rewards[:, t] + next_value"),
    Fault("lambda forgotten", "gamma * lam * later", "gamma * later"),
    Fault("gamma forgotten in the decay", "gamma * lam * later", "lam * later"),
    Fault("own value forgotten", "gamma * next_value - values[:, t]\n", "gamma * next_value\n"),
    Fault("time runs forwards", "torch.stack(backwards[::-1], dim=1)", "torch.stack(backwards, dim=1)"),
    Fault("returns are advantages", "Advantages(advantage, advantage + values)", "Advantages(advantage, advantage)"),
    Fault("whitening forgets the mean", "white = (values - mean) *", "white = values *"),
    Fault("whitening multiplies by the spread", "torch.rsqrt(variance + 1e-8)", "torch.sqrt(variance + 1e-8)"),
    Fault("whitening divides by the variance", "torch.rsqrt(variance + 1e-8)", "1 / (variance + 1e-8)"),
    Fault("variance divides by n", " * count / (count - 1).clamp(min=1)", ""),
    Fault("whitening one value", "(count - 1).clamp(min=1)", "(count - 1)"),
    Fault("whitening leaves the padding", "return torch.where(where, white + mean if keep_mean else white, torch.zeros_like(values))", "return white + mean if keep_mean else white"),
    Fault("mean never kept", "white + mean if keep_mean else white", "white"),
    Fault("policy ratio turned around", "torch.where(is_response, logp - logp_old, torch.zeros_like(logp))", "torch.where(is_response, logp_old - logp, torch.zeros_like(logp))"),
    Fault("policy ratio unbounded", "    difference = difference.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)\n    ratio", "    ratio"),
    Fault("policy clip above only", "ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(max=1 + clip)"),
    Fault("policy clip below only", "ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(min=1 - clip)"),
    Fault("policy clip at twice the range", "ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(1 - 2 * clip, 1 + 2 * clip)"),
    Fault("policy loss takes the better side", "torch.minimum(plain, bounded)", "torch.maximum(plain, bounded)"),
    Fault("policy loss pushes the wrong way", "loss=-mean_over(torch.minimum", "loss=mean_over(torch.minimum"),
    Fault("policy loss forgets the total", "torch.minimum(plain, bounded), is_response, total", "torch.minimum(plain, bounded), is_response"),
    Fault("clip fraction counts the other side", "(bounded < plain)", "(bounded > plain)"),
    Fault("approximate KL without its first-order term", "mean_over(ratio - 1 - difference, is", "mean_over(ratio - 1, is"),
    Fault("approximate KL turned around", "mean_over(ratio - 1 - difference, is", "mean_over(-difference, is"),
    Fault("mean log-ratio for the ratio", "ratio=mean_over(ratio, is", "ratio=mean_over(difference, is"),
    Fault("value clip below only", "torch.minimum(values, values_old + clip)", "values"),
    Fault("value clip above only", "torch.maximum(torch.minimum(values, values_old + clip), values_old - clip)", "torch.minimum(values, values_old + clip)"),
    Fault("value clip around the return", "torch.minimum(values, values_old + clip), values_old - clip", "torch.minimum(values, returns + clip), returns - clip"),
    Fault("value loss takes the smaller error", "torch.maximum(plain, bounded)", "torch.minimum(plain, bounded)"),
    Fault("value loss not halved", "loss=0.5 * mean_over", "loss=mean_over"),
    Fault("value loss forgets the total", "torch.maximum(plain, bounded), is_response, total", "torch.maximum(plain, bounded), is_response"),
    Fault("preference turned around", "logsigmoid(difference - margin) + (1 - q) * logsigmoid(-difference", "logsigmoid(-difference - margin) + (1 - q) * logsigmoid(difference"),
    Fault("ties count as wins", "(1 - q) * logsigmoid(-difference - margin)", "0 * logsigmoid(-difference - margin)"),
    Fault("margin makes it easier", "logsigmoid(difference - margin)", "logsigmoid(difference + margin)"),
    Fault("margin for one side only", "logsigmoid(-difference - margin)", "logsigmoid(-difference)"),
    Fault("preference never smoothed", "q = smoothed(share, label_smoothing)\n    return", "q = share\n    return"),
    Fault("smoothing for wins only", "share + label_smoothing * (1 - 2 * share)", "share - label_smoothing * share"),
    Fault("smoothing towards a half by half", "label_smoothing * (1 - 2 * share)", "label_smoothing * (0.5 - share)"),
    Fault("smoothing makes it surer", "share + label_smoothing *", "share - label_smoothing *"),
    Fault("theta makes winning easier", "logsigmoid(difference - log_theta), logsigmoid(-difference - log_theta)", "logsigmoid(difference + log_theta), logsigmoid(-difference + log_theta)"),
    Fault("theta for the first only", "logsigmoid(-difference - log_theta)", "logsigmoid(-difference)"),
    Fault("ties as likely as theta less one", "2 * log_theta + torch.log(-torch.expm1(-2 * log_theta))", "torch.log(torch.expm1(log_theta))"),
    Fault("ties at any theta", "width + first + second", "first + second"),
    Fault("ties despite the first", "width + first + second", "width + second"),
    Fault("theta squared loses its accuracy", "torch.log(-torch.expm1(-2 * log_theta))", "torch.log(1 - torch.exp(-2 * log_theta))"),
    Fault("ties are half a win under the ties model", "torch.where(share == 0.5, logp.tie, q * logp.first + (1 - q) * logp.second)", "(q * logp.first + (1 - q) * logp.second)"),
    Fault("everything is a tie", "torch.where(share == 0.5, logp.tie,", "torch.where(share <= 1, logp.tie,"),
    Fault("the ties model takes the loser", "q * logp.first + (1 - q) * logp.second", "q * logp.second + (1 - q) * logp.first"),
    Fault("the ties model is never smoothed", "logp, q = outcome_logp(difference, log_theta), smoothed(share, label_smoothing)", "logp, q = outcome_logp(difference, log_theta), share"),
    Fault("the ties model makes it less likely", "return -torch.where(share", "return torch.where(share"),
    Fault("the mean over answers", "return scores.mean(0)\n    if how == \"min\"", "return scores.mean(1)\n    if how == \"min\""),
    Fault("the best member judges", "scores.amin(0)", "scores.amax(0)"),
    Fault("disagreement pays", "scores.mean(0) - uwo_coef", "scores.mean(0) + uwo_coef"),
    Fault("disagreement is free", "uwo_coef * scores.std", "scores.std"),
    Fault("disagreement is a variance", "scores.std(0, correction=0)", "scores.var(0, correction=0)"),
    Fault("the deviation of a sample", "std(0, correction=0)", "std(0)"),
    Fault("any other word is uwo", 'if how == "uwo":', "if True:"),
    Fault("adversarial turned round", "bradley_terry_loss(good - sampled", "bradley_terry_loss(sampled - good"),
    Fault("adversarial adds the sides", "bradley_terry_loss(good - sampled", "bradley_terry_loss(good + sampled"),
    Fault("adversarial pairs are ties", "torch.ones_like(good))\n", "0.5 * torch.ones_like(good))\n"),
    Fault("adversarial forgets the total", "torch.ones_like(good, dtype=torch.bool), total)", "torch.ones_like(good, dtype=torch.bool))"),
    Fault("adversarial trains one side", "bradley_terry_loss(good - sampled", "bradley_terry_loss(good - sampled.detach()"),
    Fault("KL error not held", "min(max(kl / target - 1, -0.2), 0.2)", "kl / target - 1"),
    Fault("KL coefficient falls when KL is high", "(1 + error * episodes / horizon)", "(1 - error * episodes / horizon)"),
    Fault("KL coefficient ignores the horizon", "error * episodes / horizon", "error"),
    Fault("answers of single tokens", "return sum_over(token_logp(logits, tokens), where)", "return token_logp(logits, tokens)[:, 0]"),
    Fault("answers with their padding", "return sum_over(token_logp(logits, tokens), where)", "return token_logp(logits, tokens).sum(1)"),
    Fault("likelihood pushed down", "return -mean_over(logp, is_answer, total)", "return mean_over(logp, is_answer, total)"),
    Fault("likelihood of all positions", "return -mean_over(logp, is_answer, total)", "return -logp.mean()"),
    Fault("likelihood forgets the total", "return -mean_over(logp, is_answer, total)", "return -mean_over(logp, is_answer)"),
    Fault("dpo without its temperature", "difference = beta * (chosen - rejected)", "difference = chosen - rejected"),
    Fault("dpo turned round", "beta * (chosen - rejected)", "beta * (rejected - chosen)"),
    Fault("dpo adds the sides", "beta * (chosen - rejected)", "beta * (chosen + rejected)"),
    Fault("dpo smooths the wrong side", "torch.ones_like(difference), label", "torch.zeros_like(difference), label"),
    Fault("dpo never smooths", "torch.ones_like(difference), label_smoothing=label_smoothing)", "torch.ones_like(difference))"),
    Fault("ipo over whole answers", "h = chosen / chosen_tokens.clamp(min=1) - rejected / rejected_tokens.clamp(min=1)", "h = chosen - rejected"),
    Fault("ipo divides by the other length", "rejected / rejected_tokens.clamp", "rejected / chosen_tokens.clamp"),
    Fault("ipo divides by nothing", "chosen / chosen_tokens.clamp(min=1)", "chosen / chosen_tokens"),
    Fault("ipo aims at one over beta", "1 / (2 * beta)", "1 / beta"),
    Fault("ipo not squared", "(h - 1 / (2 * beta)) ** 2", "(h - 1 / (2 * beta)).abs()"),
    Fault("mismatched KL over the sum", "log_ratio.detach().mean()", "log_ratio.detach().sum()"),
    Fault("mismatched KL trains", "log_ratio.detach().mean()", "log_ratio.mean()"),
    Fault("mismatched KL below zero", "return log_ratio.detach().mean().clamp(min=0)", "return log_ratio.detach().mean()"),
    Fault("mismatched KL clamps each pair", "log_ratio.detach().mean().clamp(min=0)", "log_ratio.detach().clamp(min=0).mean()"),
    Fault("mismatched KL turned round", "log_ratio.detach().mean()", "-log_ratio.detach().mean()"),
    Fault("kto around zero", "beta * (log_ratio - torch.as_tensor(kl).detach().clamp(min=0))", "beta * log_ratio"),
    Fault("kto trains its KL", "torch.as_tensor(kl).detach()", "torch.as_tensor(kl)"),
    Fault("kto with a negative KL", ".detach().clamp(min=0))", ".detach())"),
    Fault("kto likes all answers", "torch.where(is_desirable, away, -away)", "away"),
    Fault("kto swaps the weights", "torch.where(is_desirable, desirable_weight, undesirable_weight)", "torch.where(is_desirable, undesirable_weight, desirable_weight)"),
    Fault("kto pays the value", "* (1 - value)", "* value"),
    Fault("leave-one-out keeps the one", "(rewards.sum(1, keepdim=True) - rewards) / (count - 1)", "rewards.mean(1, keepdim=True)"),
    Fault("leave-one-out divides by all", "- rewards) / (count - 1)", "- rewards) / count"),
    Fault("leave-one-out over prompts", "(rewards.sum(1, keepdim=True) - rewards)", "(rewards.sum(0, keepdim=True) - rewards)"),
    Fault("leave-one-out of one", "if count < 2:", "if count < 1:"),
    Fault("answer's KL rewarded", "(score - kl_coef * sum_over", "(score + kl_coef * sum_over"),
    Fault("answer's KL is k3", "sum_over(getattr(kl_terms(logp, logp_ref), estimator), is_response)).detach()", "sum_over(kl_terms(logp, logp_ref).k3, is_response)).detach()"),
    Fault("answer's KL is always k1", "sum_over(getattr(kl_terms(logp, logp_ref), estimator), is_response)).detach()", "sum_over(kl_terms(logp, logp_ref).k1, is_response)).detach()"),
    Fault("answer's reward is trained", "is_response)).detach()", "is_response))"),
    Fault("answer's KL with the padding", "sum_over(getattr(kl_terms(logp, logp_ref), estimator), is_response)", "getattr(kl_terms(logp, logp_ref), estimator).sum(1)"),
    Fault("reinforce pushes the wrong way", "return -mean_over(advantage.detach()", "return mean_over(advantage.detach()"),
    Fault("reinforce trains its advantage", "advantage.detach() * logp", "advantage * logp"),
    Fault("reinforce forgets the total", "dtype=torch.bool), total)", "dtype=torch.bool))"),
]  # fmt: skip


TREE_FAULTS = [
    Fault("an answer sees the others", "(seen == 0) | (seen == seeing)", "(seen >= 0)"),
    Fault("an answer does not see the prompt", "((seen == 0) | (seen == seeing))", "(seen == seeing)"),
    Fault("a token sees what comes after it", "device=branch.device).tril()", "device=branch.device)"),
    Fault("padding sees nothing", "may_see = may_see | torch.eye(width, dtype=torch.bool, device=branch.device)", "pass"),
    Fault("padding sees the row", "& (seeing >= 0)", ""),
    Fault("a mask of ones", "allowed.masked_fill(~may_see, torch.finfo(dtype).min)", "allowed.masked_fill(~may_see, 1.0)"),
    Fault("a mask turned around", "masked_fill(~may_see", "masked_fill(may_see"),
    Fault("positions run on through the row", "place += range(shared, len(sequence))", "place += range(len(place), len(place) + len(sequence) - shared)"),
    Fault("all answers are one branch", "branch += [number] *", "branch += [1] *"),
    Fault("the second answer starts at its first token", "line += sequence[shared:]", "line += sequence[: len(sequence) - shared]"),
    Fault("the common part takes all of the shortest", "for sequence in group) - 1", "for sequence in group)"),
    Fault("the common part stops one late", "            return place\n", "            return place + 1\n"),
    Fault("the end is one token early", "rows.lengths[:, None] - 1)", "rows.lengths[:, None] - 2)"),
    Fault("a token predicts itself", "device=first.device)[None] - 1", "device=first.device)[None]"),
    Fault("the columns of the first answer for all", "*range(len(line), len(line) + len(sequence) - shared)", "*range(shared, len(sequence))"),
    Fault("plain rows padded on the right", "range(width - len(sequence), width)", "range(len(sequence))"),
    Fault("the size of a tree counts the prompt per answer", "shared + sum(len(sequence) - shared", "shared + sum(len(sequence)"),
    Fault("any error is trusted", "if found <= LARGEST_ERROR[base.dtype]:", "if True:"),
    Fault("an error is told and forgotten", "            base.reads_trees = False\n", "            few = []\n"),
    Fault("answers come back in the order of their prompts", "[torch.tensor(order, device=states.device).argsort()]", ""),
    Fault("a prompt with many answers is never cut", "max(1, room // responses)", "len(tokens)"),
    Fault("all neighbours begin alike", "2 * alike >= len(sequence) and", ""),
    Fault("both readings are plain", "for way in (True, False))", "for way in (False, False))"),
]  # fmt: skip


CHECKPOINT_FAULTS = [
    Fault("what is computed once is computed again", "                return read_tensors(content)\n", "                pass\n"),
    Fault("what another run computed is taken", "if told == hashlib.sha256(content + about.encode()).hexdigest():", "if True:"),
    Fault("what was computed once is never written", "        os.rename(half, file)\n        return found", "        return found"),
    Fault("moments start anew", '    live.optimizer.load_state_dict({"state": state, "param_groups": found.state["optimizer"]["groups"]})\n', ""),
    Fault("weights start anew", "                weight.copy_(saved[name])\n", "                pass\n"),
    Fault("shapes are not compared", "[tuple(weight.shape) for weight in some]:", "[tuple(saved[name].shape) for name in sorted(saved)]:"),
    Fault("weights are kept by reference", 'detach().to("cpu", copy=True)', 'detach().to("cpu")'),
    Fault("lists are kept by reference", "list(fact) if isinstance(fact, list) else fact", "fact"),
    Fault("only the newest stays", "KEPT = 2 ", "KEPT = 1 "),
    Fault("the newest by the alphabet", "key=lambda path: (len(path.name), path.name)", "key=lambda path: path.name"),
    Fault("the oldest first", "for path in reversed(in_order(folder)):", "for path in in_order(folder):"),
    Fault("bytes are not compared", 'if files[name] != {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}:', "if False:"),
    Fault("a damaged one stays", "            discard(path)\n            continue", "            continue"),
    Fault("a damaged one is skipped in silence", '            tell(f"{path.name} is skipped: {reason}.")\n', ""),
    Fault("a missing file is not called missing", "except FileNotFoundError as missing:", "except NotADirectoryError as missing:"),
    Fault("another run's checkpoint is taken", '        refuse_other(path.name, found.state["expected"], expected)\n', ""),
    Fault("only what the checkpoint names is compared", "for key in sorted({*made_from, *expected})", "for key in sorted(made_from)"),
    Fault("files are not synced", "        os.fsync(stream.fileno())\n", ""),
    Fault("the folder is not synced before its name", "        _sync(temporary)\n", ""),
    Fault("the name is not synced", "        _sync(folder)\n", ""),
    Fault("the manifest is not last", "{**contents, MANIFEST: as_json(files)}", "{MANIFEST: as_json(files), **contents}"),
    Fault("the same step is not replaced", "            discard(target)\n", "            pass\n"),
    Fault("half a save stays in the way", '    sweep(folder)\n    target = ', "    target = "),
    Fault("half a save stays after a resume", "    sweep(folder)\n    for path", "    for path"),
    Fault("seconds for minutes", "self.seconds = 60 * minutes", "self.seconds = minutes"),
    Fault("one second late", "self._clock() - self._last_save >= self.seconds", "self._clock() - self._last_save > self.seconds"),
    Fault("the clock is never set back", "self._kept, self._last_save = None, self._clock()", "self._kept = None"),
    Fault("now is not heard", "if now or self._clock()", "if self._clock()"),
    Fault("a pause writes nothing", "        if isinstance(error, SetAside):\n            self._write()", "        pass"),
    Fault("every end writes", "if isinstance(error, SetAside):", "if error is not None:"),
    Fault("the point of the step waits", "            self.run.flush()\n", ""),
    Fault("another number of threads is not told", "        if other:\n", "        if False:\n"),
    Fault("another program is not told", '        "program": program_digest(),\n', ""),
]  # fmt: skip


CORRUPTION_FAULTS = [
    Fault("any token is hidden", "for place, may in enumerate(may_hide) if may])", "for place, may in enumerate(may_hide)])"),
    Fault("half as many are hidden", "count = max(1, round(share * len(candidates)))", "count = max(1, round(share * len(candidates) / 2))"),
    Fault("a short text hides nothing", "count = max(1, round(share * len(candidates)))", "count = round(share * len(candidates))"),
    Fault("the first tokens are hidden", "candidates[torch.randperm(len(candidates), generator=draw)[:count]]", "candidates[:count]"),
    Fault("places in the order of the draw", "[:count]].sort().values.tolist()", "[:count]].tolist()"),
    Fault("masked without a draw of its own", "torch.randperm(len(candidates), generator=draw)", "torch.randperm(len(candidates))"),
    Fault("all that is guessed is masked", "if fate < 0.8:", "if fate < 1.1:"),
    Fault("none of the guessed stays", "elif fate < 0.9:", "else:"),
    Fault("none is replaced by another", "seen[place] = ordinary[other]", "pass"),
    Fault("the other is always the first", "seen[place] = ordinary[other]", "seen[place] = ordinary[0]"),
    Fault("all of a text is removed", "length - 1)\n", "length)\n"),
    Fault("nothing of a short text is removed", "min(max(1, round(density * length)), length - 1)", "min(round(density * length), length - 1)"),
    Fault("single tokens are removed", "round(removed / mean_span)", "removed"),
    Fault("spans outnumber their sentinels", ", length - removed, most_spans)", ", length - removed)"),
    Fault("spans outnumber what is kept", "removed, length - removed, most_spans)", "removed, most_spans)"),
    Fault("a removed stretch comes first", "found += [False] * kept + [True] * gone", "found += [True] * gone + [False] * kept"),
    Fault("all spans are alike", "removed_lengths = _cut(removed, spans, draw)", "removed_lengths = [removed // spans] * spans"),
    Fault("all kept stretches are alike", "kept_lengths = _cut(length - removed, spans, draw)", "kept_lengths = [(length - removed) // spans] * spans"),
    Fault("a sentinel for every token", "if removed and not was_removed:", "if removed:"),
    Fault("the targets lack their sentinels", "            targets.append(sentinels[count])\n", ""),
    Fault("the text lacks its sentinels", "            seen.append(sentinels[count])\n", ""),
    Fault("no last sentinel", "Spans(seen, [*targets, sentinels[count]])", "Spans(seen, targets)"),
    Fault("one sentinel for all", "            count += 1\n", ""),
    Fault("the decoder writes what is kept", "(targets if removed else seen)", "(seen if removed else targets)"),
    Fault("spans of one length", "torch.randint(1, longest + 1, (1,), generator=draw)", "torch.full((1,), longest)"),
    Fault("the longest span is left out", "torch.randint(1, longest + 1,", "torch.randint(1, longest,"),
    Fault("half as much is predicted", "round(span / share)", "round(2 * span / share)"),
    Fault("spans stand at the start of their stretch", "start + int(torch.randint(stretch - span + 1, (1,), generator=draw))", "start"),
    Fault("special tokens are predicted", "len(may_ask))) if may_ask[place]]", "len(may_ask)))]"),
    Fault("a short text predicts nothing", "    if not places:\n", "    if False:\n"),
    Fault("from left to right", "[places[i] for i in torch.randperm(len(places), generator=draw).tolist()]", "places"),
    Fault("a predicted token sees itself", "(rank[None] >= rank[:, None])", "(rank[None] > rank[:, None])"),
    Fault("the order turned around", "(rank[None] >= rank[:, None])", "(rank[None] <= rank[:, None])"),
    Fault("all see what is predicted", "(rank[None] >= 0) &", "(rank[:, None] >= 0) &"),
    Fault("nothing predicted is seen", "& (rank[None] >= rank[:, None])", ""),
    Fault("rows and columns swapped", "rank[None] >= rank[:, None]", "rank[:, None] >= rank[None]"),
]  # fmt: skip


PACKING_FAULTS = [
    Fault("a token sees itself only from the next on", "torch.finfo(dtype).min, dtype=dtype).triu(1)", "torch.finfo(dtype).min, dtype=dtype).triu(0)"),
    Fault("a token sees what comes after it in its piece", "torch.finfo(dtype).min, dtype=dtype).triu(1)", "torch.finfo(dtype).min, dtype=dtype).triu(2)"),
    Fault("what is seen besides is hidden", "torch.cat([torch.zeros(own, seen, dtype=dtype), hidden], 1)", "torch.cat([torch.full((own, seen), torch.finfo(dtype).min, dtype=dtype), hidden], 1)"),
    Fault("masks are of one dtype", "hidden = torch.full((own, own), torch.finfo(dtype).min, dtype=dtype).triu(1)\n            made[own, seen] = torch.cat([torch.zeros(own, seen, dtype=dtype), hidden], 1)", "hidden = torch.full((own, own), torch.finfo(dtype).min).triu(1)\n            made[own, seen] = torch.cat([torch.zeros(own, seen), hidden], 1)"),
    Fault("equal shapes have masks of their own", "if (own, seen) not in made:", "if True:"),
    Fault("the asking rows of the next piece", "asked.mask[columns[start:end] - asked.piece.start]", "asked.mask[: end - start]"),
    Fault("a piece that asks nothing is dropped with its neighbour", "if end > start:", "if end > start + 1:"),
    Fault("only what is kept has a backward", "shares = next(shares_of) if asked.is_kept else _shares(query, key, asked, ctx.scale)", "shares = next(shares_of)"),
    Fault("no scale", "alpha=scale).softmax(-1)", "alpha=1.0).softmax(-1)"),
    Fault("no scale in the backward", "shares.dtype).mul_(ctx.scale)", "shares.dtype)"),
    Fault("softmax over the asking", "alpha=scale).softmax(-1)", "alpha=scale).softmax(1)"),
    Fault("queries and values exchanged in the backward", "torch.bmm(towards.transpose(1, 2), query[:, asked.rows])", "torch.bmm(towards.transpose(1, 2), own)"),
    Fault("the gradient of what is seen besides is lost", "    whole[:, piece.seen_from : piece.seen_to] += part[:, :seen]\n", ""),
    Fault("the gradient of what is seen besides overwrites", "whole[:, piece.seen_from : piece.seen_to] += part[:, :seen]", "whole[:, piece.seen_from : piece.seen_to] = part[:, :seen]"),
    Fault("the own gradient overwrites what others saw", "whole[:, piece.start : piece.end] += part[:, seen:]", "whole[:, piece.start : piece.end] = part[:, :part.shape[1] - seen]"),
    Fault("a piece sees its own tokens only", "return x[:, piece.seen_from : piece.end]", "return x[:, piece.start : piece.end]"),
    Fault("own tokens come first", "torch.cat([x[:, piece.seen_from : piece.seen_to], x[:, piece.start : piece.end]], 1)", "torch.cat([x[:, piece.start : piece.end], x[:, piece.seen_from : piece.seen_to]], 1)"),
    Fault("long stretches are never cut", "range(start, end, LONGEST)", "range(start, end, 10**6)"),
    Fault("a cut stretch forgets its beginning", "Piece(at, min(at + LONGEST, end), first, at)", "Piece(at, min(at + LONGEST, end), at, at)"),
    Fault("an answer whose prompt stands elsewhere is cut", "if seen_to > seen_from and seen_to != start:", "if False:"),
    Fault("shared keys in the wrong order", "key.repeat_interleave(groups, 0)", "key.repeat(groups, 1, 1)"),
    Fault("caps are ignored", "if attention_mask is not None or softcap is not None:", "if attention_mask is not None:"),
    Fault("masks are ignored", "if attention_mask is not None or softcap is not None:", "if softcap is not None:"),
    Fault("the usual scale is forgotten", "query.shape[-1] ** -0.5 if scaling is None", "1.0 if scaling is None"),
]  # fmt: skip


LLAMA_FAULTS = [
    Fault("keys are not turned", "key = turned(_heads(mine, \"k\", normed), cos, sin)", "key = _heads(mine, \"k\", normed)"),
    Fault("queries are turned by the first places", "cos[columns], sin[columns])", "cos[: len(columns)], sin[: len(columns)])"),
    Fault("the last layer forgets its input", "wanted = x[0, columns] + mine.o_proj(found.flatten(1))", "wanted = mine.o_proj(found.flatten(1))"),
    Fault("the last layer forgets its attention", "return (wanted + layer.mlp(", "return (x[0, columns] + layer.mlp("),
    Fault("the last layer is never trimmed", "if line is not None and line.columns is not None:", "if False:"),
    Fault("a trimmed layer reads no rows", "if line is not None and line.columns is not None:", "if True:"),
    Fault("norms of the heads are left out", "return found if norm is None else norm(found)", "return found"),
    Fault("what stands in front of a prompt is seen", "is_front[:, None].expand", "torch.zeros_like(is_front)[:, None].expand"),
    Fault("other answers are seen", "is_other.repeat(1, length)", "torch.zeros_like(is_other).repeat(1, length)"),
    Fault("queries of a key stand at the wrong answers", ".repeat_interleave(together, 0)\n", ".repeat(together, 1)\n"),
    Fault("places count the front", "self._position = lengths.repeat_interleave(count)", "self._position = torch.full((len(lengths) * count,), width)"),
    Fault("the places of the first prompt for all", "self._position = lengths.repeat_interleave(count)", "self._position = lengths.repeat(count)"),
    Fault("the place stands still", "        self._position = self._position + 1\n", ""),
    Fault("every token is written to one place", "        self._read += self.count\n", ""),
    Fault("a prompt's tokens see what comes after", "is_causal=len(own) > 1", "is_causal=False"),
    Fault("prompts are read as one", "positions = torch.cat([torch.arange(length, device=ends.device) for length in lengths])", "positions = torch.arange(sum(lengths))"),
    Fault("a prompt's first state is its last", "wanted=ends - 1", "wanted=ends - torch.tensor(lengths)"),
    Fault("states go to the wrong answers", "states.repeat_interleave(self.count, 0)", "states.repeat(self.count, 1)"),
    Fault("a prompt's keys stand too early", "kept.keys[place, :, self._read - keys.shape[1] : self._read] = keys", "kept.keys[place, :, : keys.shape[1]] = keys"),
    Fault("keys go to the wrong answers", "return x.unflatten(0, (-1, self.count)).transpose(1, 2)", "return x.unflatten(0, (self.count, -1)).permute(1, 2, 0, 3)"),
    Fault("a token does not see itself", "kept.keys[:, :, :now], kept.values[:, :, :now], attn_mask=self._mask[..., :now]", "kept.keys[:, :, : self._read], kept.values[:, :, : self._read], attn_mask=self._mask[..., : self._read]"),
    Fault("the answers that stay are the first", "_Kept(kept.keys[prompts], kept.values[prompts])", "_Kept(kept.keys[: len(prompts)], kept.values[: len(prompts)])"),
    Fault("the mask of the prompts that left", "self._mask[prompts], self._position[side", "self._mask[: len(prompts)], self._position[side"),
    Fault("the places of the rows that left", "self._position[side_by_side(prompts, self.count)]", "self._position[: len(prompts) * self.count]"),
]  # fmt: skip

PLAIN_FAULTS = [
    Fault("no mean", "value=1 / x.shape[-1]", "value=1"),
    Fault("no epsilon", "_scalar(norm.least, x.device)", "_scalar(0.0, x.device)"),
    Fault("no gain", ".mul_(norm.gain)", ""),
    Fault("half precision becomes single", "found if found.dtype == x.dtype else found.to(x.dtype)", "found"),
    Fault("gate and up exchanged", "activation(gate).mul_(up)", "activation(up).mul_(gate)"),
    Fault("halves are not exchanged", "x.roll(x.shape[-1] // 2, -1)", "x"),
]  # fmt: skip

STACK_FAULTS = [
    Fault("the other half is negated", "torch.cat([-first, second], -1)", "torch.cat([first, -second], -1)"),
    Fault("any family is taken", "return type(backbone).__name__ in WIRED_ALIKE", "return True"),
    Fault("any kind of position is taken", "getattr(backbone.rotary_emb, \"rope_type\", \"default\") in FIXED_TURNS", "True"),
    Fault("a model without an output layer is taken", "and head is not None\n        and joined.can_join([head])\n", ""),
    Fault("queries and keys are not turned", "            both = plain.turned(both, *turns)\n", "            pass\n"),
    Fault("queries and keys are not turned by loops", "            self.loops.turn_in_place(both, *turns, positions)\n", "            pass\n"),
    Fault("places of the first rows for all", "self._turns[0][positions], self._turns[1][positions]", "self._turns[0][: len(positions)], self._turns[1][: len(positions)]"),
    Fault("norms of the heads are left out", "has_norms = hasattr(mine, \"q_norm\")", "has_norms = False"),
    Fault("attention forgets its input", "x = product(at, 1, seen, x)", "x = product(at, 1, seen)"),
    Fault("the second half forgets its input", "self._gated(layer, both), x)", "self._gated(layer, both))"),
    Fault("the last norm is left out", "return self._normed(self._last_norm, x)", "return x"),
    Fault("the norm before attention is left out", "product(at, 0, self._normed(layer.before_attention, x))", "product(at, 0, x)"),
    Fault("norms of the heads are not put back", "both.copy_(normed)", "both"),
    Fault("wanted rows ask the first questions", "query, x, every = query[wanted], x[wanted],", "query, x, every = query[: len(wanted)], x[wanted],"),
    Fault("wanted rows forget where they came from", "query, x, every = query[wanted], x[wanted],", "query, x, every = query[wanted], x[: len(wanted)],"),
    Fault("wanted rows are taken for the first ones' adapters", "whose if wanted_shares is None else wanted_shares", "whose"),
    Fault("values are keys", "heads[:, self.queries + self.keys :])", "key)"),
    Fault("the adapter stays in the weights", "            self._packed = None\n", "            pass\n"),
    Fault("the adapter is left out of the weights", "weights if adapter is None else joined.merged(weights, group, adapter)", "weights"),
    Fault("the adapter is in the weights and beside them", "            yield self.adapters([])\n", "            yield self.adapters([adapter] if adapter else [])\n"),
]  # fmt: skip

JOINED_FAULTS = [
    Fault("whole numbers forget the bias", "bias if both is None else both", "both"),
    Fault("whole numbers forget what is added", "more + bias", "bias"),
    Fault("the scale of a merged adapter is left out", ", alpha=layer.scaling[adapter])", ")"),
    Fault("an adapter is merged into the first layer", "whole[rows].addmm_(", "whole[: len(b)].addmm_("),
    Fault("the weights themselves take the adapter in", "weights.weight.clone(), 0", "weights.weight, 0"),
    Fault("layers keep weights of their own", "        layer.weight.data = whole[start : start + layer.out_features]\n", ""),
    Fault("views of the first layer", "whole[start : start + layer.out_features]\n", "whole[: layer.out_features]\n"),
    Fault("the bias is left out", "torch.cat([_bias(layer) for layer in inner])", "torch.zeros(len(whole))"),
    Fault("the adapter is taken off", "alpha=layer.scaling[adapter])", "alpha=-layer.scaling[adapter])"),
    Fault("packed weights forget the bias", '_linear_pointwise.default(x, blocks, bias, ', '_linear_pointwise.default(x, blocks, None, '),
    Fault("number formats are mixed", "and len({layer.weight.dtype for layer in inner}) == 1", ""),
    Fault("any layer is taken", "type(layer) is nn.Linear for layer in inner", "True for layer in inner"),
    Fault("any number format can be packed", 'if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):', "if False:"),
]  # fmt: skip


INT8_FAULTS = [
    Fault("all rows count alike", "given.abs().amax(-1, keepdim=True)", "given.abs().amax().expand(len(given), 1).clone()"),
    Fault("all outputs count alike", "weight.float().abs().amax(1)", "weight.float().abs().amax().expand(len(weight)).clone()"),
    Fault("inputs are cut off", "(given / step).round_()", "(given / step)"),
    Fault("weights are cut off", "step[:, None]).round_()", "step[:, None])"),
    Fault("the middle is forgotten", ".bitwise_xor_(MIDDLE)", ""),
    Fault("the middle is elsewhere", "whole, 1.0, 128,", "whole, 1.0, 127,"),
    Fault("a row's step is left out", "out.mul_(step) if", "out if"),
    Fault("what is added is multiplied", "torch.addcmul(more.float(), out, step)", "(more.float() + out) * step"),
    Fault("a number too many", "MOST = 127", "MOST = 128"),
    Fault("half precision becomes single", "out if out.dtype == x.dtype else out.to(x.dtype)", "out"),
]  # fmt: skip


BESIDE_FAULTS = [
    Fault("the scale is left out", " * layer.scaling[name]", ""),
    Fault("outputs of the first layer", "b[number, at, :own] =", "b[number, 0, :own] ="),
    Fault("inner values of the first layer", "column = (first + at) * rank", "column = first * rank"),
    Fault("an adapter is everywhere", "if isinstance(layer, LoraLinear) and name in layer.lora_A:", "if isinstance(layer, LoraLinear):"),
    Fault("rows sit on one another's seats", "seat[row] = (owner - first) * seats + place", "seat[row] = place"),
    Fault("rows without an adapter have one", "given if seats.is_without is None else given.masked_fill_(seats.is_without, 0.0)", "given"),
    Fault("spans from the first row on", "slice(start, end)))", "slice(0, end)))"),
    Fault("every span has the first adapter", "inner = torch.mm(x[rows], lora.a[adapter])", "inner = torch.mm(x[rows], lora.a[0])"),
    Fault("seats of the first adapters", "lora.a[whose])", "lora.a[:count])"),
]  # fmt: skip

FUSED_FAULTS = [
    Fault("no mean", "length.square_().div_(x.shape[-1]) + epsilon", "length.square_() + epsilon"),
    Fault("no epsilon", "length.square_().div_(x.shape[-1]) + epsilon", "length.square_().div_(x.shape[-1])"),
    Fault("no weight", ".to(x.dtype).mul_(weight)", ".to(x.dtype)"),
    Fault("the gradient forgets the weight", "towards = (grad * weight).float()", "towards = grad.float()"),
    Fault("the gradient forgets the length", ".addcmul_(x.float(), along, value=-1)", ""),
    Fault("the gradient adds the length", "along, value=-1)", "along, value=1)"),
    Fault("the length's gradient over the square", "mul_(inverse**3)", "mul_(inverse**2)"),
    Fault("the length's gradient is no mean", ".mul_(inverse**3).div_(x.shape[-1])", ".mul_(inverse**3)"),
    Fault("every norm is taken for this one", "if is_one and _is_the_same(module):", "if is_one:"),
    Fault("the precision is not x's", "return (x * inverse).to(x.dtype).mul_(weight)", "return (x * inverse).mul_(weight)"),
]  # fmt: skip


LBFGS_FAULTS = [
    Fault("uphill", "_newton(gradient, moves).neg_()", "_newton(gradient, moves)"),
    Fault("the first step is as long as the gradient", "1.0 / float(gradient.norm())", "1.0"),
    Fault("every length is taken", "if after <= -OVERSHOOT * before:", "if True:"),
    Fault("only a level end is taken", "if after <= -OVERSHOOT * before:", "if abs(after) <= -1e-3 * before:"),
    Fault("a step is halved", "length *= before / (before - after)", "length *= 0.999"),
    Fault("a bend that is none is kept", "if product > 0 else None", "if True else None"),
    Fault("the last gradient is forgotten", "gradient + move.change", "move.change"),
    Fault("ends by the mean of the slopes", "float(gradient.abs().max()) <= slope", "float(gradient.abs().mean()) <= slope"),
    Fault("ends by the largest rise alone", "float(gradient.abs().max()) <= slope", "float(gradient.max()) <= slope"),
    Fault("moves from the oldest on", "for move in reversed(moves):", "for move in moves:"),
    Fault("shares in the wrong order", "zip(moves, reversed(shares), strict=True)", "zip(moves, shares, strict=True)"),
    Fault("the bend upside down", "moves[-1].product / float(moves[-1].change @ moves[-1].change)", "float(moves[-1].change @ moves[-1].change) / moves[-1].product"),
    Fault("the bend of the oldest move", "moves[-1].product / float(moves[-1].change @ moves[-1].change)", "moves[0].product / float(moves[0].change @ moves[0].change)"),
    Fault("no bend at all", "found.mul_(moves[-1].product / float(moves[-1].change @ moves[-1].change))", "pass"),
    Fault("the second half added in full", "share - float(move.change @ found) / move.product", "share"),
    Fault("nothing is remembered", "deque(maxlen=REMEMBERED)", "deque(maxlen=0)"),
]  # fmt: skip


class Suite(NamedTuple):
    """A file of a room of backend, the file of tests beside it, and what is done to it. Its tests take no arguments."""

    name: str
    faults: list[Fault]
    room: str = "training"

    @property
    def source(self) -> Path:
        return ROOT / "backend" / self.room / f"{self.name}.py"

    @property
    def tests(self) -> Path:
        return ROOT / "tests" / "backend" / self.room / f"test_{self.name}.py"


SUITES = [
    Suite("maths", FAULTS),
    Suite("tree", TREE_FAULTS),
    Suite("checkpoint", CHECKPOINT_FAULTS),
    Suite("corruption", CORRUPTION_FAULTS),
    Suite("packing", PACKING_FAULTS),
    Suite("llama", LLAMA_FAULTS),
    Suite("joined", JOINED_FAULTS, "decoder"),
    *([Suite("int8", INT8_FAULTS, "decoder")] if int8.is_there() else []),
    Suite("beside", BESIDE_FAULTS, "decoder"),
    Suite("plain", PLAIN_FAULTS, "decoder"),
    Suite("stack", STACK_FAULTS, "decoder"),
    Suite("fused", FUSED_FAULTS),
    Suite("lbfgs", LBFGS_FAULTS),
]


def tests_on(suite: Suite, version: types.ModuleType) -> dict[str, Callable[[], None]]:
    """The tests of a suite, about this version of its file."""
    spec = importlib.util.spec_from_file_location(f"mutated_test_{suite.name}", suite.tests)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    setattr(module, suite.name, version)
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


def fails(test: Callable[[], None]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            test()
        except (Exception, pytest.fail.Exception):
            return True
    return False


def compiled(suite: Suite, source: str) -> types.ModuleType:
    module = types.ModuleType(f"mutated_{suite.name}")
    exec(compile(source, str(suite.source), "exec"), module.__dict__)  # noqa: S102 our own source, changed by us
    return module


def survivors() -> list[str]:
    """Names of the faults that no test notices, and of those that no longer fit the source."""
    return [name for suite in SUITES for name in survivors_of(suite)]


def survivors_of(suite: Suite) -> list[str]:
    source = suite.source.read_text(encoding="utf-8")
    seconds = {}
    for name, test in tests_on(suite, compiled(suite, source)).items():
        began = time.thread_time()
        if fails(test):
            return [f"{suite.name}.py as it is fails {name}"]
        seconds[name] = time.thread_time() - began
    quickest_first = sorted(seconds, key=lambda name: seconds[name])
    alive = []
    for fault in suite.faults:
        if source.count(fault.old) < 1:
            alive.append(f"{fault.name} (its text is not in the source any more)")
            continue
        tests = tests_on(suite, compiled(suite, source.replace(fault.old, fault.new)))
        if not any(fails(tests[name]) for name in quickest_first):
            alive.append(fault.name)
    return alive


def main() -> int:
    torch.set_num_threads(1)  # the models are tiny; beside other work, threads wait for one another many times as long
    alive = survivors()
    for name in alive:
        print(f"survived: {name}")
    count = sum(len(suite.faults) for suite in SUITES)
    print(f"{count - len(alive)} of {count} faults noticed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
