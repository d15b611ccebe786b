def get(x):
    return x
