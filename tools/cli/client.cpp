// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/client.hpp"

#include <httplib.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace sluice::cli {

namespace {

std::string user_name() {
  if (const passwd* p = ::getpwuid(::getuid()); p != nullptr && p->pw_name != nullptr)
    return p->pw_name;
  return std::to_string(::getuid());
}

// The server's errors, as the contract writes them: FILE:LINE: key: message.
std::vector<std::string> error_lines(int status, const std::string& body) {
  std::vector<std::string> lines;
  const json answer = json::parse(body, nullptr, false);
  if (answer.is_object() && answer.contains("errors") && answer["errors"].is_array()) {
    for (const json& e : answer["errors"]) {
      std::string line;
      if (const std::string file = e.value("file", ""); !file.empty()) {
        line += file;
        if (const int n = e.value("line", 0); n > 0) line += ":" + std::to_string(n);
        line += ": ";
      }
      if (const std::string key = e.value("key", ""); !key.empty()) line += key + ": ";
      lines.push_back(line + e.value("message", "refused"));
    }
  }
  if (lines.empty())
    lines.push_back(fmt::format("the control plane answered with HTTP status {}", status));
  return lines;
}

}  // namespace

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) != 0 || c == '-' || c == '_' || c == '.' || c == '~') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", u);
    }
  }
  return out;
}

std::string client::call(const std::string& method, const std::string& path, const query& q,
                         const std::string& body) {
  // Ask the file system first: httplib says only "connection failed".
  struct stat st {};
  if (::stat(socket_.c_str(), &st) != 0) {
    const std::string line = fmt::format(
        "{}: {}: is sluice-controlplane running? (--socket PATH names "
        "another socket)",
        socket_, std::strerror(errno));
    if (errno == ENOENT || errno == ENOTDIR) throw unreachable(line);
    throw failure(line);
  }
  if (!S_ISSOCK(st.st_mode)) throw failure(socket_ + ": is not a socket");
  if (::access(socket_.c_str(), R_OK | W_OK) != 0)
    throw failure(
        fmt::format("{}: {}: its owner and group may use it", socket_, std::strerror(errno)));

  httplib::Client http{socket_};
  http.set_address_family(AF_UNIX);
  http.set_connection_timeout(timeout_);
  http.set_read_timeout(timeout_);
  http.set_write_timeout(timeout_);
  // Paths are percent-encoded here: names and addresses may hold ':' and '/'.
  http.set_url_encode(false);

  httplib::Request request;
  request.method = method;
  request.path = path;
  char separator = '?';
  for (const auto& [name, value] : q) {
    request.path += separator + name + "=" + percent_encode(value);
    separator = '&';
  }
  request.headers = {{"Host", "localhost"}, {"X-Sluice-Author", user_name()}};
  if (!reason_.empty()) request.headers.emplace("X-Sluice-Reason", percent_encode(reason_));
  if (!expected_.empty() && method != "GET") request.headers.emplace("If-Match", expected_);
  if (method != "GET") {
    request.body = body;
    request.headers.emplace("Content-Type", "application/yaml");
  }
  const httplib::Result result = http.send(request);
  if (!result) {
    if (result.error() == httplib::Error::Connection)
      throw unreachable(
          fmt::format("{}: nobody answers: is sluice-controlplane running?", socket_));
    throw failure(fmt::format("{}: no answer within {} s ({})", socket_, timeout_.count(),
                              httplib::to_string(result.error())));
  }
  if (result->status < 200 || result->status > 299)
    throw failure(error_lines(result->status, result->body));
  return result->body;
}

namespace {
json parse_answer(const std::string& socket, const std::string& body) {
  json answer = json::parse(body, nullptr, false);
  if (answer.is_discarded()) throw failure(socket + ": the answer is not JSON");
  return answer;
}
}  // namespace

json client::get(std::string_view path, const query& q) {
  return parse_answer(socket_, call("GET", std::string{path}, q, {}));
}
std::string client::get_text(std::string_view path, const query& q) {
  return call("GET", std::string{path}, q, {});
}
json client::put(std::string_view path, const query& q, const std::string& body) {
  return parse_answer(socket_, call("PUT", std::string{path}, q, body));
}
json client::post(std::string_view path, const json& body, const query& q) {
  return parse_answer(socket_, call("POST", std::string{path}, q, body.dump()));
}
json client::patch(std::string_view path, const json& body) {
  return parse_answer(socket_, call("PATCH", std::string{path}, {}, body.dump()));
}
json client::remove(std::string_view path) {
  return parse_answer(socket_, call("DELETE", std::string{path}, {}, {}));
}

}  // namespace sluice::cli
