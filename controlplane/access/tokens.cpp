// SPDX-License-Identifier: Apache-2.0
#include "controlplane/access/tokens.hpp"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "dataplane/abi/whole_file.hpp"

namespace sluice::access {
namespace {

constexpr std::size_t most_bytes = 1u << 20;
constexpr std::size_t shortest = 16;  // characters; fewer can be guessed
constexpr std::size_t longest = 256;
constexpr std::string_view hash_mark = "sha256:";
constexpr std::string_view blanks = " \t\r";

std::string_view next_word(std::string_view& line) {
  const std::size_t from = std::min(line.find_first_not_of(blanks), line.size());
  line.remove_prefix(from);
  const std::size_t end = std::min(line.find_first_of(blanks), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// printable(): what can stand in an HTTP header as it is (RFC 6750 section 2.1).
bool printable(std::string_view token) {
  for (const char c : token)
    if (c <= 0x20 || c >= 0x7f || c == '"' || c == ',') return false;
  return true;
}

}  // namespace

token_list::hash token_list::hash_of(std::string_view token) {
  hash out;
  ::SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), out.data());
  return out;
}

tl::expected<token_list, std::vector<config_error>> token_list::parse(std::string_view text,
                                                                      std::string_view file_name) {
  yaml::error_list errors{file_name};
  token_list out;
  unsigned number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = line.substr(0, line.find('#'));
    const std::string_view kind = next_word(line);
    if (kind.empty()) continue;
    entry e;
    if (kind == "admin") {
      e.allows = role::admin;
    } else if (kind == "heartbeat") {
      e.allows = role::heartbeat;
    } else if (kind != "read-only") {
      errors.add(number, {},
                 yaml::shown(kind) + " allows nothing; expected read-only, heartbeat or admin");
      continue;
    }
    std::string_view token = next_word(line);
    // A token is not repeated in an error: those are logged.
    if (token.empty() || !next_word(line).empty()) {
      errors.add(number, {}, "expected one token after " + std::string{kind});
      continue;
    }
    if (token.starts_with(hash_mark)) {
      token.remove_prefix(hash_mark.size());
      bool good = token.size() == 2 * e.digest.size();
      for (std::size_t i = 0; good && i < e.digest.size(); ++i) {
        const int high = digit_of(token[2 * i]);
        const int low = digit_of(token[2 * i + 1]);
        good = high >= 0 && low >= 0;
        if (good) e.digest[i] = static_cast<unsigned char>(high * 16 + low);
      }
      if (!good) {
        errors.add(number, {}, "sha256: is not followed by 64 hexadecimal digits");
        continue;
      }
    } else if (token.size() < shortest || token.size() > longest || !printable(token)) {
      errors.add(number, {},
                 "a token has 16 to 256 printable ASCII characters, no blanks, quotes or commas "
                 "(openssl rand -hex 32 makes one)");
      continue;
    } else {
      e.digest = hash_of(token);
    }
    bool known = false;
    for (const entry& other : out.entries_) known = known || other.digest == e.digest;
    if (known)
      errors.add(number, {}, "this token is on a line above already");
    else
      out.entries_.push_back(e);
  }
  if (errors.empty() && out.entries_.empty())
    errors.add(0, {}, "holds no token; expected lines such as: admin TOKEN");
  if (!errors.empty()) return tl::unexpected{errors.take()};
  return out;
}

std::string secret_problem(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return std::strerror(errno);
  if (!S_ISREG(st.st_mode)) return "is not a file";
  if ((st.st_mode & (S_IRWXO | S_IWGRP)) != 0)
    return "others may read or change it; expected at most mode 0640 (chmod 640)";
  return {};
}

tl::expected<token_list, std::vector<config_error>> token_list::load(const std::string& path) {
  const auto fail = [&](std::string what) {
    return tl::unexpected{std::vector{config_error{path, 0, {}, std::move(what)}}};
  };
  if (std::string why = secret_problem(path); !why.empty()) return fail(std::move(why));
  const auto text = read_whole_file(path, most_bytes, file_kinds::regular);
  if (!text) return fail(text.error());
  return parse(*text, path);
}

std::optional<role> token_list::find(std::string_view token) const {
  const hash asked = hash_of(token);
  std::optional<role> found;
  for (const entry& e : entries_)
    if (::CRYPTO_memcmp(asked.data(), e.digest.data(), asked.size()) == 0) found = e.allows;
  return found;
}

}  // namespace sluice::access
