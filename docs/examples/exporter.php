<?php // Registers background tasks with the exporter and waits for them. Needs no library.

/** Sends a request, with retries while the exporter is unavailable; returns the status and the decoded body. */
function exporter(string $method, string $path, ?array $body = null): array
{
    $context = stream_context_create(['http' => [
        'method' => $method,
        'header' => 'Content-Type: application/json',
        'content' => $body === null ? '' : json_encode($body, JSON_THROW_ON_ERROR),
        'timeout' => 60,
        'ignore_errors' => true,
    ]]);
    $url = getenv('EXPORTER') ?: 'http://localhost:10117';
    for ($tries = (int) (getenv('TRIES') ?: 30); $tries > 0; $tries--) {
        $stream = @fopen($url . $path, 'r', false, $context);
        $text = $stream ? stream_get_contents($stream) : '';
        $status = $stream ? (int) explode(' ', stream_get_meta_data($stream)['wrapper_data'][0])[1] : 0;
        if (!in_array($status, [0, 429, 500, 502, 503, 507], true)) {
            return [$status, json_decode($text, true)];
        }
        sleep((int) (getenv('PAUSE') ?: 10));
    }
    throw new RuntimeException("the exporter does not answer (status $status) $text");
}

function register_task(int $id, string $name): void
{
    [$status, $answer] = exporter('PUT', "/api/v1/tasks/$id", ['name' => $name]);
    if ($status !== 201 && $status !== 200) {
        throw new RuntimeException("task $id is not registered: " . ($answer['error'] ?? "status $status"));
    }
}

/** Returns once the task is completed; throws if it is rejected, unknown or not finished in time. */
function wait_for_task(int $id, int $patience = 4 * 3600): void
{
    $deadline = time() + $patience;
    do {
        [$status, $answer] = exporter('GET', "/api/v1/tasks/$id/wait");
    } while ($status === 504 && time() < $deadline);
    if ($status === 409) {
        exporter('DELETE', "/api/v1/tasks/$id");
        throw new RuntimeException("task $id is rejected");
    }
    if ($status !== 200) {
        throw new RuntimeException("task $id (status $status): " . json_encode($answer));
    }
}
