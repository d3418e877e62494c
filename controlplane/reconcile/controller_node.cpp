// SPDX-License-Identifier: Apache-2.0
// What an operator asks of this node alone, which is no part of the desired state.
#include <spdlog/spdlog.h>

#include "controlplane/reconcile/controller.hpp"

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

// A backend has 16 names, one after the other; the workers take up to 21 s to forget the old ones.
constexpr std::size_t most_flushes = 8;
constexpr auto flushes_within = 25s;

}  // namespace

tl::expected<std::vector<std::string>, change_error> controller::flush(
    const std::optional<std::string>& service) {
  using answer = tl::expected<std::vector<std::string>, change_error>;
  return loop_.invoke([&]() -> answer {
    std::vector<std::string> names;
    for (const auto& s : publication_.state().services)
      if (!service || s.name == *service) names.push_back(s.name);
    if (service && names.empty())
      return tl::unexpected{change_error{refusal::not_found,
                                         {{{}, 0, {}, "there is no service '" + *service + "'"}}}};
    const auto now = event_loop::now();
    for (auto it = flushed_.begin(); it != flushed_.end();) {
      std::erase_if(it->second, [&](auto when) { return now - when > flushes_within; });
      it = it->second.empty() ? flushed_.erase(it) : std::next(it);
    }
    for (const std::string& name : names)
      if (const auto it = flushed_.find(name);
          it != flushed_.end() && it->second.size() >= most_flushes)
        return tl::unexpected{
            change_error{refusal::busy,
                         {{{},
                           0,
                           {},
                           name + ": was flushed " + std::to_string(most_flushes) +
                               " times within 25 s; try again later"}}}};
    for (const std::string& name : names)
      if (publication_.writer().flush(name)) flushed_[name].push_back(now);
    if (!names.empty()) publication_.now();
    spdlog::info("connections are flushed: {}", service ? *service : "of all services");
    return names;
  });
}

tl::expected<node_drain, change_error> controller::drain_node(bool drained,
                                                              const std::string& author,
                                                              const std::string& reason) {
  const std::lock_guard lock{change_mutex_};
  const node_drain now = loop_.invoke([this] { return drain_; });
  if (now.drained == drained) return now;
  const node_drain next{drained, std::chrono::system_clock::now(), author, reason};
  if (const auto saved = save_node_drain(*keeper_, next); !saved)
    return tl::unexpected{change_error{refusal::failed, {{{}, 0, {}, saved.error()}}}};
  events_.add("node", {},
              {{"state", drained ? "drained" : "up"}, {"author", author}, {"reason", reason}});
  spdlog::info("this node is {} by {}", drained ? "drained" : "taken back in",
               author.empty() ? "unknown" : author);
  loop_.invoke([&] {
    drain_ = next;
    announce();
  });
  return next;
}

}  // namespace sluice::reconcile
