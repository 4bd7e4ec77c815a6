"""Places: consoles, shells, folders and files as they are on other people's machines."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jupyter_client
import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from conftest import SCRIPT, make_settings, run_script, start_script
from PIL import Image, PngImagePlugin

import digit_recognition as dr

needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such shell or file names")


@pytest.fixture
def seven(digits, tmp_path):
    """A picture of a 7, in a folder of its own."""
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "pictures" / "seven.png"
    Image.fromarray(digits[0][0]).save(path)
    return path


# ----------------------------------------------------------------------------------- consoles


def run_with_closed(streams, *words):
    """Run the script in a shell without some streams, such as "2>&-"."""
    command = shlex.join([sys.executable, str(SCRIPT), *map(str, words)])
    return subprocess.run(["bash", "-c", f"{command} {streams}"], capture_output=True, text=True)


@pytest.fixture(scope="module")
def other_data(small, tmp_path_factory):
    """The options of a run on another data set, of images of 24 x 28 pixels."""
    path = tmp_path_factory.mktemp("data") / "a set.npz"
    cut = {name: small[name][:, 2:26] for name in ("x_train", "x_test")}
    np.savez(path, **(small | cut))
    return ["--data", path, "--epochs", "1", "--batch-size", "150"]


@pytest.fixture(scope="module")
def trained(other_data, tmp_path_factory):
    """A real run, where there is a shell with stdin and stderr closed: (process, output folder)."""
    folder = tmp_path_factory.mktemp("trained")
    words = [*other_data, "--no-show", "--output-dir", folder]
    process = run_script(*words) if os.name == "nt" else run_with_closed("<&- 2>&-", *words)
    return process, folder


def test_another_data_set_is_trained_on_in_whole_batches_without_stderr_too(trained):
    process, folder = trained
    assert process.returncode == 0 and "Test accuracy: " in process.stdout
    assert "Training on 220 images, validating on 20" in process.stdout
    assert "(None, 24, 28, 1)" in process.stdout
    assert "oneDNN" not in (folder / "history.csv").read_text()


def test_without_stdout_it_reads_all_the_same(
    run_as_program, seven, network, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it in a shell with >&-, and pythonw
    words = ["--predict", seven, "--model", network, "--output-dir", tmp_path]
    assert run_as_program(*words) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "predictions.png").exists()


# ------------------------------------------------------------------------------------ windows


@pytest.fixture
def use_backend():
    """A function that has Matplotlib use another backend, as MPLBACKEND does, until the end."""
    before = plt.get_backend()
    yield matplotlib.use
    plt.close("all")
    matplotlib.use(before)


@pytest.mark.parametrize("backend", ["svg", "pdf"])
def test_a_pad_without_a_window_is_refused(main, network, tmp_path, backend, use_backend):
    use_backend(backend)
    code, out, err = main("--draw", "--model", network, "--output-dir", tmp_path / "output")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("digit_recognition.py: --draw needs a display (on Linux, python3-tk), ")
    assert not list(tmp_path.iterdir())


BACKEND = """
import time
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backend_bases import FigureManagerBase

class FigureManager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block=None):
        print("shown", block, flush=True)
        {show}

class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager

{first}
"""


def write_backend(folder, name, show="pass", first=""):
    (folder / f"{name}.py").write_text(BACKEND.format(show=show, first=first))
    return f"module://{name}"


def test_another_tools_backend_shows_the_figures_and_waits(
    main, seven, network, tmp_path, monkeypatch, use_backend
):
    """As PyCharm's does. The windows fit on a laptop's screen."""
    monkeypatch.syspath_prepend(tmp_path)
    use_backend(write_backend(tmp_path, "tool"))
    code, out, err = main("--predict", *[seven] * 20, "--model", network, "--output-dir", tmp_path)
    assert (code, err, out.splitlines()[-1]) == (0, "", "shown True")
    width, height = plt.gcf().get_size_inches() * plt.gcf().dpi
    assert 500 < width <= 1366 and 600 < height <= 768 and len(plt.gcf().axes) == 8
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.size == (1200, 20 * 360)


def test_a_backend_that_cannot_be_loaded_leaves_files_and_says_so(
    main, seven, network, monkeypatch, use_backend
):
    matplotlib.rcParams["backend"] = "module://no_such_module"  # as MPLBACKEND says it
    monkeypatch.setattr(plt, "_backend_mod", None)  # as before the first figure of a process
    code, out, err = main("--predict", seven, "--model", network, "--output-dir", seven.parent)
    assert code == 0 and out.startswith(f"{seven}: 7  (7 ") and err.count("\n") == 1
    assert "are saved, but module://no_such_module cannot show them" in err
    assert (seven.parent / "predictions.png").exists()


def test_a_toolkit_that_fails_leaves_files_and_says_so(
    main, seven, network, tmp_path, monkeypatch, use_backend
):
    """As Tk does without its init.tcl."""
    broken = "def broken(*_, **__):\n    raise RuntimeError('no init.tcl')\n"
    broken += "FigureManager.create_with_canvas = broken"
    monkeypatch.syspath_prepend(tmp_path)
    use_backend(write_backend(tmp_path, "no_tk", first=broken))
    code, out, err = main("--predict", seven, "--model", network, "--output-dir", tmp_path)
    assert code == 0 and "7  (7 " in out and err.count("\n") == 1
    expected = "digit_recognition.py: figures are saved, but module://no_tk cannot show them:"
    assert err.startswith(expected)
    assert (tmp_path / "predictions.png").exists()


@needs_posix
def test_ctrl_c_while_windows_are_open_ends_at_once_and_quietly(seven, network, tmp_path):
    backend = write_backend(tmp_path, "sleepy", show="time.sleep(60)")
    surroundings = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(tmp_path)}
    words = ["--predict", seven, "--model", network, "--output-dir", tmp_path]
    process = start_script(*words, env=surroundings)
    for line in process.stdout:
        if line.startswith("shown"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def test_json_opens_no_windows():
    assert not make_settings("--predict", "x.png", "--json").show


# -------------------------------------------------------------- other people's settings


def test_figures_look_the_same_whatever_matplotlibrc_says(main, seven, network, tmp_path):
    options = ["--predict", seven, "--model", network, "--output-dir"]
    assert main(*options, tmp_path / "default")[0] == 0
    theirs = {"image.origin": "lower", "text.usetex": True, "axes.titlecolor": "white"}
    matplotlib.rcParams.update(theirs)
    assert main(*options, tmp_path / "theirs")[0] == 0
    one, two = ((tmp_path / name / "predictions.png") for name in ("default", "theirs"))
    assert one.read_bytes() == two.read_bytes()


def test_a_notebooks_backend_and_keras_json_change_no_result_and_print_no_figure(
    main, other_data, trained, tmp_path, monkeypatch, use_backend
):
    """As !python finds it: with a backend of modules, which shows figures by printing them."""
    (tmp_path / "inline.py").write_text(
        "from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas\n"
        "from matplotlib.backends.backend_agg import FigureManagerBase as FigureManager\n"
        "def show(*_, **__):\n    print('Figure(1000x400)')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    use_backend("module://inline")
    try:
        keras.config.set_image_data_format("channels_first")
        keras.config.set_floatx("float16")
        keras.config.set_dtype_policy("mixed_bfloat16")
        code, out, err = main(*other_data, "--output-dir", tmp_path / "output")
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("Test accuracy: ")
    model = keras.saving.load_model(tmp_path / "output" / "model.keras", compile=False)
    assert model.dtype == "float32"
    folders = tmp_path / "output", trained[1]
    one, two = ((folder / "history.csv").read_bytes() for folder in folders)
    assert one == two
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    assert one["test_loss"] == two["test_loss"]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A folder of a real Jupyter kernel, and a function that runs a cell in it."""
    folder = tmp_path_factory.mktemp("notebook")
    for name in (SCRIPT.name, "data"):
        (folder / name).symlink_to(SCRIPT.parent / name)
    with jupyter_client.run_kernel(kernel_name="python3", cwd=folder) as kernel:

        def run_cell(text):
            printed = []
            answer = kernel.execute_interactive(
                text, timeout=120, output_hook=lambda message: printed.append(message["content"])
            )
            texts = [content.get("text", "") for content in printed]
            return answer["content"]["status"], "".join(texts)

        yield folder, run_cell


@needs_posix
def test_importing_the_script_takes_seconds_and_has_no_side_effect_but_its_imports(notebook):
    _, run_cell = notebook
    words = "sys.argv = ['-c', '--epochs', 'nonsense']"
    start = time.perf_counter()
    status, printed = run_cell(
        f"import sys\ntheirs = sys.argv\n{words}\nimport digit_recognition\nsys.argv = theirs"
    )
    assert time.perf_counter() - start < 20
    assert (status, printed) == ("ok", "")


SOURCE = SCRIPT.read_text(encoding="utf-8")
COLAB = "import sys\ntheirs = sys.argv\nsys.argv = ['colab_kernel_launcher.py', '-f', 'a.json']"
NOTEBOOK = {  # what the kernel is given to run
    "a cell of Colab": f"{COLAB}\n{SOURCE}\nsys.argv = theirs",
    "VS Code's interactive window": f"__file__ = {str(SCRIPT)!r}\n{SOURCE}",
    "%run": "%run digit_recognition.py --limit 1000 --epochs 1",
}


@needs_posix
@pytest.mark.parametrize("name", NOTEBOOK)
def test_in_a_notebook_it_trains_and_the_next_cell_runs(notebook, name):
    folder, run_cell = notebook
    # Fewer images, for the sake of time: a cell has no command line.
    text = NOTEBOOK[name].replace('    "epochs": 5,', '    "epochs": 1,')
    text = text.replace("load_data(settings.data, settings.limit)", "load_data(None, 1000)")
    status, printed = run_cell(text)
    assert status == "ok" and "Test accuracy: " in printed and "Error" not in printed
    assert (folder / "output" / "model.keras").exists()
    metrics = json.loads((folder / "output" / "metrics.json").read_text())
    assert metrics["test_images"] == 1000 and metrics["test_accuracy"] > 0.75
    shutil.rmtree(folder / "output")


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "")])
def test_too_little_memory_is_one_line(main, tmp_path, monkeypatch, error):
    def exhaust(*_):
        raise error

    monkeypatch.setattr(dr, "train", exhaust)
    code, _, err = main("--limit", 600, "--no-show", "--output-dir", tmp_path)
    assert code == 1
    assert err.count("\n") == 1 and "not enough memory; lower --batch-size or --limit" in err


def test_a_callers_figures_and_backend_stay(main, seven, network):
    mine, backend = plt.figure("mine"), plt.get_backend()
    main("--predict", seven, "--model", network, "--output-dir", seven.parent, "--no-show")
    assert mine.number in plt.get_fignums() and plt.get_backend() == backend


# -------------------------------------------------------------------------------------- files


def damaged(content):
    return lambda path, model: path.write_bytes(content)


def cut(path, model):
    model.save(path)
    path.write_bytes(path.read_bytes()[:-2000])


MODELS = {  # how it is made, and what the line says
    "empty": (damaged(b""), "accessible `.keras` zip file"),
    "foreign": (damaged(b"\x89PNG" * 99), "accessible `.keras` zip file"),
    "cut": (cut, "accessible `.keras` zip file"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_is_not_a_model_is_refused(main, seven, model, name):
    make, expected = MODELS[name]
    path = seven.parent / "model.keras"
    make(path, model)
    code, out, err = main("--predict", seven, "--model", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"{path}: " in err and expected in err and "; train a model, or name one by" in err


@needs_posix
def test_names_that_cannot_be_read_do_not_end_the_reading_of_others(main, seven, network):
    names = ["x" * 5000, "/root/no/such.png", seven]
    options = ["--model", network, "--output-dir", seven.parent]
    code, out, err = main("--predict", *names, *options)
    assert code == 1 and out.startswith(f"{seven}: 7") and err.count("\n") == 2


def test_a_folder_stands_for_all_below_it_but_hidden_files(main, seven, network):
    below = seven.parent / "more" / "7"
    below.mkdir(parents=True)
    shutil.copy(seven, below)
    (below / "IMG_1.HEIC").write_bytes(b"of a phone")
    (seven.parent / ".hidden.png").write_bytes(b"of a Mac")
    options = ["--model", network, "--output-dir", seven.parent.parent / "output"]
    code, out, err = main("--predict", seven.parent, *options)
    assert code == 1 and [line[:2] for line in out.split(": ")[1:3]] == ["7 ", "7 "]
    assert out.endswith("correct: 1 of 2 (50.0%)\n")
    assert str(below / "seven.png") in out
    assert err.count("\n") == 1 and f"{below / 'IMG_1.HEIC'}: " in err and "save it again" in err


@pytest.mark.parametrize("name", ["empty", "missing.png", "*.png"])
def test_a_folder_without_pictures_and_a_missing_picture_are_named(main, tmp_path, network, name):
    (tmp_path / "empty").mkdir()
    code, out, err = main("--predict", tmp_path / name, "--model", network)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"{tmp_path / name}: no such file, or a folder without pictures" in err


def test_brackets_in_a_name_are_no_pattern(main, seven, network):
    folder = seven.parent / "scans [1]"
    folder.mkdir()
    seven.rename(folder / "7[2].png")
    options = ["--model", network, "--output-dir", seven.parent.parent]
    for path in (folder, folder / "7[2].png"):
        code, out, err = main("--predict", path, *options)
        assert (code, err) == (0, "") and out.startswith(f"{folder / '7[2].png'}: 7  (")


@needs_posix
def test_a_folder_that_results_cannot_be_written_to_is_named_with_the_option(main, seven, network):
    options = ["--model", network, "--output-dir", "/proc/nowhere"]
    code, out, err = main("--predict", seven, *options)
    assert code == 1 and out.startswith(f"{seven}: 7") and err.count("\n") == 1
    assert "/proc/nowhere" in err and "--output-dir names the folder of results" in err


def test_of_several_pages_the_first_is_read(main, digits, tmp_path, network):
    pages = [Image.fromarray(image) for image in digits[0][:3]]
    pages[0].save(tmp_path / "scan.tiff", save_all=True, append_images=pages[1:])
    options = ["--model", network, "--output-dir", tmp_path]
    code, out, err = main("--predict", tmp_path / "scan.tiff", *options)
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path / 'scan.tiff'}: 7")


def test_a_phones_200_megapixels_are_read(main, digits, tmp_path, network):
    ink = np.pad(np.asarray(Image.fromarray(digits[0][0]).resize((1400, 1400))), 300)
    Image.fromarray(255 - ink).resize((16000, 12500)).save(tmp_path / "photo.jpg", quality=50)
    options = ["--model", network, "--output-dir", tmp_path]
    code, out, err = main("--predict", tmp_path / "photo.jpg", *options)
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path / 'photo.jpg'}: 7")


SEVENS = np.zeros((2, 28, 28))
NO_PICTURES = [None, 7, b"\x89PNG", [[0, 255]], np.int64(SEVENS[0]), np.float16(SEVENS[0])]
NO_PICTURES += [SEVENS, SEVENS[..., None], np.uint8(SEVENS[:, :0, :0])]


@pytest.mark.parametrize("source", NO_PICTURES, ids=range(len(NO_PICTURES)))
def test_what_is_no_picture_gets_one_sentence(source):
    advice = r"give a Pillow image or an array, uint8 \(height, width\)$"
    with pytest.raises(dr.InputError, match=rf"^image: .*; {advice}"):
        dr.read_digits(source, None)


def test_a_png_with_a_long_text_is_read(digits, model, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 3_000_000, zip=True)
    Image.fromarray(digits[0][0]).save(tmp_path / "long.png", pnginfo=text)
    assert dr.row_texts(dr.read_digits(tmp_path / "long.png", model).rows) == ["7"]


def test_a_float_picture_without_some_numbers_is_read(digits, model, tmp_path):
    pixels = np.float32(np.kron(digits[0][0], np.ones((5, 5))))
    pixels[3, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "float.tiff")
    assert dr.row_texts(dr.read_digits(tmp_path / "float.tiff", model).rows) == ["7"]


@pytest.mark.parametrize("name", ["read_data_set", "load_model", "read_digits"])
def test_too_little_memory_for_a_file_is_not_called_a_damaged_one(
    main, seven, network, monkeypatch, tmp_path, name
):
    def exhaust(*_, **__):
        raise MemoryError

    inner = {"read_data_set": (dr, "read_idx"), "read_digits": (dr, "open_grey")}
    inner["load_model"] = keras.saving, "load_model"
    monkeypatch.setattr(*inner[name], exhaust)
    words = {"read_data_set": ["--data", tmp_path]}
    words["read_digits"] = ["--predict", seven, "--model", network]
    words["load_model"] = ["--predict", seven, "--model", tmp_path / "another.keras"]
    code, _, err = main(*words[name])
    assert code == 1 and err.count("\n") == 1 and ": not enough memory; " in err


def test_an_array_with_a_channel_is_read_as_one_without(mnist, model):
    image = mnist[1][0][0]
    assert image.shape == (28, 28, 1)
    assert dr.row_texts(dr.read_digits(image, model).rows) == ["7"]
    assert dr.row_texts(dr.read_digits(image[..., 0], model).rows) == ["7"]


def test_an_empty_output_folder_is_the_current_one(main, seven, network, monkeypatch):
    monkeypatch.chdir(seven.parent)
    code, out, _ = main("--predict", seven, "--model", network, "--output-dir", "")
    assert code == 0 and "See predictions.png (" in out
    assert (seven.parent / "predictions.png").exists()


def test_patterns_that_the_shell_left_as_they_are_name_pictures(main, seven, network):
    options = ["--model", network, "--output-dir", seven.parent / "output"]
    code, out, err = main("--predict", seven.parent / "*.png", *options)
    assert (code, err) == (0, "") and out.startswith(f"{seven}: 7  (")


def test_a_picture_is_drawn_from_what_was_read_even_if_it_is_gone(
    main, seven, network, monkeypatch
):
    read = dr.read_digits

    def read_and_delete(path, model):
        reading = read(path, model)
        path.unlink()
        return reading

    monkeypatch.setattr(dr, "read_digits", read_and_delete)
    code, _, err = main("--predict", seven, "--model", network, "--output-dir", seven.parent)
    assert (code, err) == (0, "") and (seven.parent / "predictions.png").exists()


def test_a_picture_with_damaged_exif_data_is_read_without_turning_it(digits, model, tmp_path):
    page = Image.fromarray(digits[0][0]).resize((200, 200))
    page.save(tmp_path / "exif.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0")
    assert dr.row_texts(dr.read_digits(tmp_path / "exif.png", model).rows) == ["7"]
