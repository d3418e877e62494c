// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/verify.hpp"

#include <set>
#include <utility>

namespace sluice::backup {
namespace {

// check_texts() goes on reading where the backup before it has ended.
std::string check_texts(const archive& data, store::text_reader& reader) {
  for (const auto& r : data.revisions)
    if (const auto text = reader.next(r); !text) return text.error();
  return {};
}

}  // namespace

result<verified> verify(const std::string& path) {
  const auto d = directory::read(path);
  if (!d) return tl::unexpected{d.error()};
  verified out;
  out.problems = d->problems();
  std::set<const entry*> seen;
  // From each full backup along all that builds on it, with the last text at hand.
  std::vector<std::pair<const entry*, store::text_reader>> waiting;
  for (const entry& e : d->entries())
    if (e.about.kind == backup_kind::full) waiting.emplace_back(&e, store::text_reader{});
  while (!waiting.empty()) {
    auto [e, reader] = std::move(waiting.back());
    waiting.pop_back();
    seen.insert(e);
    ++out.backups;
    out.revisions += e->about.revisions();
    const auto data = d->load(*e);
    if (!data) {
      out.problems.push_back(data.error());
    } else if (const std::string why = check_texts(*data, reader); !why.empty()) {
      out.problems.push_back(d->file_of(*e, data_suffix) + ": " + why);
    }
    for (const entry& next : d->entries()) {
      if (next.about.kind == backup_kind::full || next.about.parent != e->about.name()) continue;
      if (!misfit(*e, next).empty() || seen.contains(&next)) continue;
      // What builds on damage is looked at all the same, but for its texts.
      if (data) {
        waiting.emplace_back(&next, reader);
      } else {
        seen.insert(&next);
        ++out.backups;
        if (const auto own = d->load(next); !own) out.problems.push_back(own.error());
        out.problems.push_back(d->file_of(next, manifest_suffix) + ": builds on " +
                               e->about.name() + ", which is damaged");
      }
    }
  }
  for (const entry& e : d->entries()) {
    if (seen.contains(&e)) continue;
    ++out.backups;
    if (const auto chain = d->chain_of(e); !chain)
      out.problems.push_back(chain.error());
    else
      out.problems.push_back(d->file_of(e, manifest_suffix) + ": builds on what is damaged");
    if (const auto own = d->load(e); !own) out.problems.push_back(own.error());
  }
  return out;
}

}  // namespace sluice::backup
